/*
 * Traffic keys (4.4): updates begun by the initiator while frames of both directions are late and
 * overtake each other.
 *
 * Side 0 is the initiator, side 1 the responder. A frame is its phase, its packet number's order
 * and bit 0 of its flags; a tag verifies under the key of the frame's own phase only. A channel
 * holds frames in the order of their numbers; one that was overtaken is marked. The 30 s of
 * KA-4.4-6 and KA-4.4-8 are over when nothing sent before the newest phase is still on its way.
 */

#ifndef UPDATES
#define UPDATES 3           /* the bit returns to an earlier phase's */
#endif
#ifndef FORGERIES
#define FORGERIES 2
#endif
#ifndef ADVERSARIES
#define ADVERSARIES 1
#endif
#define CAPACITY 3

byte sends[2];              /* phase that a side seals in */
byte newest[2];             /* phase of the newest frames that came in */
bool same_phase = true;     /* a frame of the peer has come in under the initiator's phase */
bool lasted = true;         /* and 30 s have gone by since then */
byte forgeries = FORGERIES;
bool lost;                  /* a genuine frame was not opened */

/*                            phase, overtaken */
chan net[2] = [CAPACITY] of { byte, bool };     /* net[s] leads to side s */

/* S: no frame is lost on account of an update. */
ltl no_frame_is_lost { [] !lost }
/* S: the responder is never ahead, nor two phases behind; nor does a forged frame move it. */
ltl phases_keep_together { [] (sends[0] == sends[1] || sends[0] == sends[1] + 1) }
/* L: updates go on (where not every frame is lost: without an adversary). */
ltl updates_go_on { <> (sends[0] == UPDATES && sends[1] == UPDATES) }

inline opened_next(s) {
    newest[s] = newest[s] + 1;
#ifndef MISTAKE_RESPONDER_STAYS
    sends[s] = (s == 1 -> newest[s] : sends[s])                     /* KA-4.4-7 */
#endif
}

/* KA-4.4-8: which key is tried, by bit 0 and what came in so far; genuine frames verify if right. */
inline open(s, phase, overtaken, genuine) {
    if
    :: phase % 2 == newest[s] % 2 -> lost = lost || (genuine && phase != newest[s])
#ifndef MISTAKE_PREVIOUS_KEY_FORGOTTEN
    :: phase % 2 != newest[s] % 2 && genuine && phase + 1 == newest[s] && overtaken
#endif
    :: else ->
        if
        :: genuine && phase == newest[s] + 1 && (s == 1 || phase <= sends[0]) -> opened_next(s)
#ifdef MISTAKE_BIT_BEFORE_TAG
        :: !genuine -> opened_next(s)
#endif
        :: genuine && phase != newest[s] + 1 -> lost = true
        :: else
        fi
    fi;
    if
    :: s == 0 && genuine && phase == sends[0] && !same_phase -> same_phase = true;
#ifndef MISTAKE_COUNTS_FROM_BEGINNING
        lasted = false
#endif
    :: else
    fi
}

proctype Sender(bit s) {
    do
    :: atomic { nfull(net[1 - s]) -> net[1 - s]!sends[s], false }
    od
}

proctype Receiver(bit s) {
    byte phase;
    bool overtaken;
    do
    :: atomic { nempty(net[s]) -> net[s]?phase, overtaken;
        open(s, phase, (overtaken || phase < newest[s]), true);
        phase = 0; overtaken = false }
    od
}

#define OLD_FRAMES(s) (net[s]??[eval(sends[0] - 1), false] || net[s]??[eval(sends[0] - 1), true])

#ifdef MISTAKE_UPDATES_BLINDLY
#define MAY_UPDATE true
#define COUNTS true
#elif defined(MISTAKE_COUNTS_FROM_BEGINNING)
#define MAY_UPDATE (same_phase && lasted)
#define COUNTS true
#else
#define MAY_UPDATE (same_phase && lasted)
#define COUNTS same_phase
#endif

proctype Update() {
    do
    :: atomic { sends[0] < UPDATES && MAY_UPDATE ->      /* KA-4.4-6 */
        sends[0]++; same_phase = false; lasted = false }
    :: atomic { !lasted && COUNTS && !OLD_FRAMES(0) && !OLD_FRAMES(1) -> lasted = true }
    od
}

proctype Adversary() {
    byte phase, phase2;
    bit s;
    do
    :: atomic { forgeries > 0 -> forgeries--; s = 0; goto forge }
    :: atomic { forgeries > 0 -> forgeries--; s = 1;
forge:  open(s, (newest[s] + 1), false, false); s = 0 }
    :: atomic { len(net[0]) >= 2 -> s = 0; goto swap }
    :: atomic { len(net[1]) >= 2 -> s = 1;
swap:   net[s]?phase, _; net[s]?phase2, _;
        net[s]!phase2, false; net[s]!phase, true;
        phase = 0; phase2 = 0; s = 0 }
    :: atomic { nempty(net[0]) -> net[0]?_, _ }
    :: atomic { nempty(net[1]) -> net[1]?_, _ }
    od
}

init {
    atomic {
        run Sender(0); run Sender(1); run Receiver(0); run Receiver(1); run Update();
        if
        :: ADVERSARIES > 0 -> run Adversary()
        :: else
        fi
    }
}
