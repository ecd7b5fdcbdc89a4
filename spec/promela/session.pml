/*
 * The life of a session (4.2, 4.3, 4.6, 4.7, 6.4, 7.4): handshake, two initiators at once, restart of
 * either end, new keys, close. Without time: a timer may fire when nothing is on its way, but for
 * a frame that the adversary holds back as long as it likes.
 *
 * A handshake is a number, counted over both sides, and its keys are that number and which life of
 * the responder answered it.
 * Epochs are numbers too: the lower one answers where two initiators meet (KA-4.6-1). A pair has one
 * session here, so a restart is checked where one side dials only (see README).
 */

#ifndef BOTH_DIAL
#define BOTH_DIAL 1
#endif
#ifndef RESTARTS
#define RESTARTS 1
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef HELD
#define HELD 1              /* frames held back, in all */
#endif
#ifndef CLOSES
#define CLOSES 0
#endif
#ifndef RENEWALS
#define RENEWALS 1          /* handshakes begun anew as their lifetime is over (KA-4.2-1) */
#endif
#define HANDSHAKES 8
#define BIT(n) (1 << (n))
#define KEYS(s, number) (number + HANDSHAKES * lives[s])
#define NUMBER(keys) ((keys) % HANDSHAKES)
#define IN_EMBRYO(s, keys) ((keys) / HANDSHAKES == lives[s] && (side[s].embryos & BIT(NUMBER(keys))) != 0)

mtype = { idle, connecting, up, closed };
mtype = { none, initiator, responder };
mtype = { INIT, RESPONSE, PROBE, REPLY, CLOSE };

typedef Side {
    mtype state;
    mtype role;
    byte epoch;
    byte peer_epoch;
    byte keys;              /* handshake whose keys are in use */
    byte handshake;         /* own one under way */
    byte embryos;           /* set of handshakes answered */
    byte crossed;           /* those of them after which an own one was completed (KA-4.6-3) */
    bool unanswered         /* the last PROBE is */
};

Side side[2];
byte handshakes;            /* begun so far */
byte epoch_of[HANDSHAKES];  /* epoch in its INIT */
byte lives[2];              /* restarts so far */
byte answer_epoch[2 * HANDSHAKES];
byte dialled_by;            /* bit h: handshake h is side 1's */
byte restarts = RESTARTS, losses = LOSSES, held = HELD, closes = CLOSES, renewals = RENEWALS;
bool somebody_closed, went_back, ticked;
bit turn;

chan net[2] = [2] of { mtype, byte };       /* net[s] leads to side s */
chan hold[2] = [1] of { mtype, byte };

#define QUIET (len(net[0]) == 0 && len(net[1]) == 0)
#define TOGETHER (side[0].state == up && side[1].state == up && side[0].keys == side[1].keys \
    && side[0].role != side[1].role)

/* S: under the same keys one is the initiator, the other one the responder. */
ltl roles_differ { [] (side[0].keys == 0 || side[0].keys != side[1].keys \
                       || side[0].role != side[1].role) }
/* S: nobody is closed by anything but a CLOSE of the peer or of his own. */
ltl closed_by_close_only { [] ((side[0].state != closed && side[1].state != closed) || somebody_closed) }
/* S: a session never goes back to keys older than those of a later handshake of the same peer. */
ltl keys_never_go_back { [] !went_back }
/* S: both know with whom they share keys: a restart is reported (KA-7.4-6). */
ltl restart_is_known { [] (!(TOGETHER && QUIET) || (side[0].peer_epoch == side[1].epoch \
                           && side[1].peer_epoch == side[0].epoch)) }
/* L: in the end both are UP in one session. */
ltl comes_together { <> [] TOGETHER }

/* KA-4.6-3, also for an embryo answered later than the own handshake was completed. Where the
 * epochs differ the text makes a second session, which dies with the peer's life that it belongs to;
 * a pair has one session here, so that the frame is dropped. */
#define EARLIER(s, number) ((side[s].crossed & BIT(number)) != 0)
#define KNOWN(s, number) (side[s].peer_epoch == epoch_of[number])
#ifdef MISTAKE_EARLIER_EMBRYOS_ONLY
#define MEETS(s, number) (KNOWN(s, number) && EARLIER(s, number))
#else
#define MEETS(s, number) KNOWN(s, number)
#endif
#define CROSSED(s, number) (side[s].role == initiator \
    && ((MEETS(s, number) && side[s].epoch > epoch_of[number]) \
        || (!KNOWN(s, number) && EARLIER(s, number))))
/* The timers of both sides take turns, since both run. */
#define ACTS(s) ((side[s].state == idle && (s == 0 || BOTH_DIAL)) || side[s].handshake != 0 \
    || (side[s].state == up && side[s].role == initiator))
#define TURN(s) (QUIET && turn == s)
#define MAY_BEGIN (TURN(s) && handshakes < HANDSHAKES - 1)
#define UNHEARD(s) (side[s].state == up && side[s].role == initiator && side[s].unanswered)
#define SEND(s, kind, number) \
    if \
    :: nfull(net[1 - s]) -> net[1 - s]!kind, number \
    :: full(net[1 - s]) \
    fi

inline begin(s) {
    handshakes++;
    side[s].handshake = handshakes;
    epoch_of[handshakes] = side[s].epoch;
    dialled_by = (s -> dialled_by | BIT(handshakes) : dialled_by)
}

inline establish(s, key, as, from) {
    went_back = went_back || (NUMBER(key) < NUMBER(side[s].keys) && side[s].peer_epoch == from
        && ((dialled_by >> NUMBER(key)) & 1) == ((dialled_by >> NUMBER(side[s].keys)) & 1));
    side[s].state = up;
    side[s].keys = key;
    side[s].role = as;
    side[s].peer_epoch = from;
    side[s].handshake = 0;
    side[s].unanswered = false
}

/* KA-4.3-1, KA-4.6-1 */
inline receive_init(s, number) {
    if
    :: epoch_of[number] == side[s].epoch                            /* KA-4.2-5 */
    :: side[s].state == closed && epoch_of[number] != side[s].epoch
    :: side[s].state == connecting && side[s].epoch > epoch_of[number]
    :: else ->
        side[s].embryos = side[s].embryos | BIT(number);
        answer_epoch[KEYS(s, number)] = side[s].epoch;
        SEND(s, RESPONSE, KEYS(s, number))
    fi
}

inline receive_response(s, key) {
    if
    :: NUMBER(key) == side[s].handshake && side[s].state != closed ->
        establish(s, key, initiator, answer_epoch[key]);
        side[s].crossed = side[s].embryos;
        side[s].unanswered = true;
        SEND(s, PROBE, key)
    :: else
    fi
}

#ifdef MISTAKE_ROLE_IS_KEPT
#define AS (side[s].role == none -> responder : side[s].role)
#else
#define AS responder
#endif

inline receive_probe(s, key) {
    if
    :: key == side[s].keys && side[s].state == up -> SEND(s, REPLY, key)
    :: key != side[s].keys && IN_EMBRYO(s, key) && side[s].state != closed ->
        if
#ifndef MISTAKE_CROSSED_KEYS_TAKEN
        :: CROSSED(s, NUMBER(key))
#endif
        :: else ->                                  /* KA-4.3-4, KA-4.3-5, KA-4.6-2, KA-4.7-1 */
#ifdef MISTAKE_RESTART_UNNOTICED
            was = (side[s].peer_epoch == 0 -> epoch_of[NUMBER(key)] : side[s].peer_epoch);
            establish(s, key, responder, was);
            was = 0;
#else
            establish(s, key, AS, epoch_of[NUMBER(key)]);
#endif
            side[s].embryos = side[s].embryos & ~BIT(NUMBER(key));
#ifndef MISTAKE_OLDER_EMBRYOS_LIVE
            side[s].embryos = side[s].embryos & ~(BIT(NUMBER(key)) - 1);
#endif
            side[s].crossed = 0;
            SEND(s, REPLY, key)
        fi
    :: else
    fi
}

inline receive(s, kind, number) {
    if
    :: kind == INIT -> receive_init(s, number)
    :: kind == RESPONSE -> receive_response(s, number)
    :: kind == PROBE -> receive_probe(s, number)
    :: kind == REPLY ->
        side[s].unanswered = side[s].unanswered && number != side[s].keys
    :: kind == CLOSE ->
        if
        :: side[s].state != closed && number == side[s].keys -> side[s].state = closed
        :: side[s].state != closed && IN_EMBRYO(s, number) -> side[s].state = closed
        :: else
        fi
    fi
}

proctype Receiver(bit s) {
    mtype kind;
    byte number;
#ifdef MISTAKE_RESTART_UNNOTICED
    byte was;
#endif
    do
    :: atomic { nempty(net[s]) -> net[s]?kind, number; receive(s, kind, number); kind = 0; number = 0 }
    od
}

/* What a side does of itself: probes as initiator, INIT when they are not answered, retries. */
proctype Timer(bit s) {
    do
    :: atomic { TURN(s) && !ACTS(s) -> turn = 1 - s }
    :: atomic { MAY_BEGIN && side[s].state == idle && (s == 0 || BOTH_DIAL) ->
        side[s].state = connecting; begin(s); SEND(s, INIT, side[s].handshake); turn = 1 - s }
    :: atomic { TURN(s) && side[s].handshake != 0 && side[s].state != closed ->
        if
        :: renewals > 0 && handshakes < HANDSHAKES - 1 -> renewals--; begin(s)
        :: true
        fi;
        SEND(s, INIT, side[s].handshake); turn = 1 - s }
    :: atomic { TURN(s) && side[s].state == up && side[s].role == initiator && !side[s].unanswered ->
        side[s].unanswered = true; SEND(s, PROBE, side[s].keys); turn = 1 - s }
#ifndef MISTAKE_NO_INIT_IN_SUSPICION
    :: atomic { MAY_BEGIN && UNHEARD(s) && side[s].handshake == 0 ->   /* KA-7.4-5 */
        begin(s); SEND(s, INIT, side[s].handshake); turn = 1 - s }
#endif
    :: atomic { closes > 0 && side[s].state == up -> closes--; somebody_closed = true;
        side[s].state = closed; SEND(s, CLOSE, side[s].keys) }
    od
}

proctype Adversary() {
    bit s;
    mtype kind;
    byte number;
    do
    :: atomic { restarts > 0 && side[0].state == up -> restarts--; s = 0; goto restart }
    :: atomic { restarts > 0 && side[1].state == up -> restarts--; s = 1;
restart: lives[s]++; side[s].state = idle; side[s].role = none; side[s].keys = 0; side[s].handshake = 0;
        side[s].embryos = 0; side[s].crossed = 0; side[s].unanswered = false; side[s].peer_epoch = 0;
        if
        :: side[s].epoch = side[s].epoch + 2
        :: side[s].epoch = side[s].epoch - 2
        fi;
        s = 0 }
    :: atomic { losses > 0 && nempty(net[0]) -> losses--; net[0]?_, _ }
    :: atomic { losses > 0 && nempty(net[1]) -> losses--; net[1]?_, _ }
    :: atomic { held > 0 && nempty(net[0]) && empty(hold[0]) -> held--; net[0]?kind, number;
        hold[0]!kind, number; kind = 0; number = 0 }
    :: atomic { held > 0 && nempty(net[1]) && empty(hold[1]) -> held--; net[1]?kind, number;
        hold[1]!kind, number; kind = 0; number = 0 }
    :: atomic { nempty(hold[0]) && nfull(net[0]) -> hold[0]?kind, number; net[0]!kind, number;
        kind = 0; number = 0 }
    :: atomic { nempty(hold[1]) && nfull(net[1]) -> hold[1]?kind, number; net[1]!kind, number;
        kind = 0; number = 0 }
#ifdef MISTAKE_TAG_UNCHECKED                                            /* KA-2-4 */
    :: atomic { side[1].state == up -> side[1].state = closed }
#endif
    od
}

/* Time goes on when nothing else happens. */
proctype Clock() {
    do
    :: ticked = !ticked
    od
}

init {
    atomic {
        byte i;
        for (i : 0 .. 1) {
            side[i].state = idle; side[i].role = none; run Timer(i); run Receiver(i)
        }
        side[0].epoch = 4;
        if
        :: side[1].epoch = 3
        :: side[1].epoch = 5
        fi;
        i = 0;
        run Adversary(); run Clock()
    }
}
