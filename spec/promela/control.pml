/*
 * Control state (8.6) and change of parameters (8.8), both sides changing, over a channel that
 * loses, delays and reorders, while a handshake gives the session new keys or a new begin.
 *
 * Side 0 is the initiator, side 1 the responder. A side's only parameter is the one that counts
 * in T = max(desired interval of side 0, least receive interval of side 1) (KA-8.1-1); each
 * value that a side ever had is named by its number, 0 being what the first handshake told.
 *
 * A frame carries no packet number: a channel holds frames in the order of their numbers, and one
 * that was overtaken is marked `old`. Instead of `highest_received` it carries the control_ack of
 * the frame that `highest_received` names, NONE if there is none: it confirms the frame that first
 * carried an ack if, and only if, that is this ack.
 */

#ifndef CHANGES0
#define CHANGES0 2
#endif
#ifndef CHANGES1
#define CHANGES1 1
#endif
#ifndef VERSIONS
#define VERSIONS 3          /* 255 in the protocol: 1 follows it (KA-8.6-1) */
#endif
#ifndef REKEYS
#define REKEYS 1
#endif
#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef SWAPS
#define SWAPS 1
#endif

#define NONE 7
#define BIT(n) (1 << (n))

typedef Side {
    byte newest;            /* number of the own newest value */
    byte version;           /* control_version; 0: never had any */
    bool confirmed;         /* the newest version is (KA-8.8-3) */
    byte mine;              /* set of own values that the peer may hold, and the newest */
    byte held;              /* the peer's value that was learned last */
    byte theirs;            /* set of values of the peer that it may go by */
    byte seen;              /* the peer's last version taken: control_ack (KA-8.6-2) */
    byte ack_in;            /* control_ack in the peer's newest frame */
    bool settled;           /* the peer's last change is (KA-8.8-3) */
    byte unused;            /* versions that may be taken before one is confirmed */
    bit keys;               /* which handshake's keys are in use */
    bool owes;              /* a REPLY */
    byte told               /* own value in the handshake under way */
};

Side side[2];
byte slow;                  /* bit 4 * s + n: value n of side s is the long interval */
byte losses = LOSSES, swaps = SWAPS;
byte changes[2];

/*                     old, probe, keys, version, value or NONE, control_ack, ack of the named */
chan net[2] = [CAPACITY] of { bit, bit, bit, byte, byte, byte, byte };   /* net[s] leads to side s */
bool embryo;
bool forgotten;             /* the responder no longer had the session (KA-7.6-4) */

/* The long interval is 2, the short one 1. */
#define SLOW(s, set) (((slow >> (4 * (s))) & (set)) != 0)
#define FAST(s, set) (((slow >> (4 * (s))) & (set)) != (set))
/* KA-8.8-2: T by the shortest, and by the longest, of the values in two sets */
#define SHORTEST_IS_SLOW(set0, set1) (!FAST(0, set0) || !FAST(1, set1))
#define LONGEST_IS_SLOW(set0, set1) (SLOW(0, set0) || SLOW(1, set1))

#define PROBES_SLOWLY0 SHORTEST_IS_SLOW(side[0].mine, side[0].theirs)
#define PROBES_SLOWLY1 SHORTEST_IS_SLOW(side[1].theirs, side[1].mine)
#define EXPECTS_SLOW0 LONGEST_IS_SLOW(side[0].mine, side[0].theirs)
#define EXPECTS_SLOW1 LONGEST_IS_SLOW(side[1].theirs, side[1].mine)

#define SETTLED(s) (side[s].confirmed && side[s].settled)
#define IDLE (len(net[0]) == 0 && len(net[1]) == 0 && side[0].keys == side[1].keys)
#define SLOW_T0 LONGEST_IS_SLOW(BIT(side[0].newest), BIT(side[0].held))
#define SLOW_T1 LONGEST_IS_SLOW(BIT(side[1].held), BIT(side[1].newest))

/* S: neither probes more slowly than the other expects, at any time (KA-8.8-2). */
#define never_slower (side[1].mine == 0 || (!PROBES_SLOWLY0 || EXPECTS_SLOW1) && (!PROBES_SLOWLY1 || EXPECTS_SLOW0))
/* S: both settled under the same keys, nothing in flight: both go by the same T (KA-8.8-3). */
#define agreed (side[1].mine == 0 || !(SETTLED(0) && SETTLED(1) && IDLE) || SLOW_T0 == SLOW_T1)

ltl same_interval { [] agreed }
ltl probes_as_expected { [] never_slower }
/* L: changes that end are settled, so repeating ends too (KA-8.6-1). */
ltl settles { <> [] (SETTLED(0) && SETTLED(1) && side[0].keys == side[1].keys
                     && side[0].held == side[1].newest && side[1].held == side[0].newest) }

inline raise(s) {
    side[s].version = (side[s].version == VERSIONS -> 1 : side[s].version + 1);
    side[s].confirmed = false
}

inline change(s) {
    changes[s]--;
    side[s].newest++;
    if
    :: slow = slow | (BIT(side[s].newest) << (4 * s))
    :: skip
    fi;
#ifdef MISTAKE_NOT_LENIENT
    side[s].mine = BIT(side[s].newest);
#else
#ifdef MISTAKE_FORGETS_THE_MIDDLE
    if
    :: side[s].confirmed -> side[s].mine = side[s].mine | BIT(side[s].newest)
    :: else -> side[s].mine = (side[s].mine & ~BIT(side[s].newest - 1)) | BIT(side[s].newest)
    fi;
#else
    side[s].mine = side[s].mine | BIT(side[s].newest);
#endif
#endif
    side[s].unused--;
    raise(s)
}

/* KA-8.6-1: what is not confirmed stands in each PROBE, and in a REPLY as room allows. */
inline send(s, probe, room) {
    if
    :: !side[s].confirmed && side[s].version != 0 && room ->
        net[1 - s]!0, probe, side[s].keys, side[s].version, side[s].newest, side[s].seen, side[s].ack_in
    :: else ->
        net[1 - s]!0, probe, side[s].keys, side[s].version, NONE, side[s].seen, side[s].ack_in
    fi
}

/* New keys begin control state anew: versions are 0 on both sides, values told by the handshake
 * stand beside the ones before until a frame under the new keys confirms, and who has changed
 * his since he told it tells it anew. */
inline rekey(s, told_by_me, told_to_me) {
    side[s].keys = 1;
#ifdef MISTAKE_VERSIONS_OUTLIVE_KEYS
    if
    :: s == 1 && forgotten ->
        side[s].version = 0; side[s].seen = 0; side[s].held = told_to_me;
        side[s].theirs = BIT(told_to_me); side[s].newest = told_by_me
    :: else
    fi;
    side[s].ack_in = NONE;
#else
    side[s].version = 0;
    side[s].seen = 0;
    side[s].ack_in = NONE;
    side[s].held = told_to_me;
    side[s].theirs = side[s].theirs | BIT(told_to_me);
    side[s].settled = false;
    side[s].mine = side[s].mine | BIT(told_by_me);
    side[s].confirmed = false;
    side[s].unused = VERSIONS - 1;
#ifndef MISTAKE_OLD_VALUE_STANDS
    if
    :: told_by_me != side[s].newest -> raise(s)
    :: else
    fi
#endif
#endif
}

inline take(s, old, version, value, ack, named) {
    if
#ifdef MISTAKE_OLD_FRAMES_COUNT
    :: true ->
#else
    :: !old ->              /* KA-8.6-2: the highest packet number */
#endif
        if
#ifdef MISTAKE_ACK_WITHOUT_OPTIONS
        :: value == NONE -> side[s].seen = version
#endif
        :: value != NONE && version != side[s].seen ->
            side[s].seen = version;
            side[s].held = value;
            side[s].theirs = side[s].theirs | BIT(value);
            side[s].settled = false
        :: else
        fi;
        side[s].ack_in = ack
    :: else
    fi;
    if
#ifdef MISTAKE_OLD_ACKS_COUNT
    :: ack == side[s].version && !side[s].confirmed ->
#else
    :: !old && ack == side[s].version && !side[s].confirmed ->
#endif
        side[s].confirmed = true;
        side[s].mine = BIT(side[s].newest);
        side[s].unused = VERSIONS - 1
    :: else
    fi;
    if
    :: !old && named == side[s].seen && !side[s].settled ->
        side[s].settled = true;
        side[s].theirs = BIT(side[s].held)
    :: else
    fi
}

/* The application changes a parameter; a version that the peer may still hold waits. */
proctype Application(bit s) {
    do
#ifdef MISTAKE_VERSION_RUNS_ROUND
    :: atomic { changes[s] > 0 -> change(s) }
#else
    :: atomic { changes[s] > 0 && side[s].unused > 0 -> change(s) }
#endif
    od
}

/* The initiator probes by T, both while own state is not confirmed (KA-8.6-1). */
proctype Prober(bit s) {
    do
#ifdef MISTAKE_TOLD_ONCE
    :: atomic { nfull(net[1 - s]) && (s == 0 || !side[s].confirmed) ->
        send(s, 1, true);
        side[s].confirmed = true }
#else
    :: atomic { nfull(net[1 - s]) && (s == 0 || !side[s].confirmed) -> send(s, 1, true) }
#endif
    od
}

/* KA-8.3-1, KA-8.3-3: one REPLY, whose room is that of the PROBE */
proctype Replier(bit s) {
    bool room;
    do
    :: atomic { side[s].owes && nfull(net[1 - s]) ->
        side[s].owes = false;
        if
        :: room = true
        :: skip
        fi;
        send(s, 0, room);
        room = false }
    od
}

proctype Receiver(bit s) {
    bit old, probe, keys;
    byte version, value, ack, named;
    do
    :: atomic { net[s]?old, probe, keys, version, value, ack, named ->
        if
        :: keys == 1 && side[s].keys == 0 && s == 1 && probe && embryo ->
            /* KA-4.3-4: the first PROBE under the keys of the embryo */
            rekey(1, side[1].told, side[0].told);
            embryo = false
        :: else
        fi;
        if
        :: keys == side[s].keys ->
            side[s].owes = side[s].owes || probe;
            take(s, old, version, value, ack, named)
        :: else             /* KA-5.3-1: lingering keys have no effect */
        fi;
        old = 0; probe = 0; keys = 0; version = 0; value = 0; ack = 0; named = 0 }
    od
}

/* A handshake that continues the session, INIT and RESPONSE being as late as they like. The same
 * bytes are sent again when it retries (KA-4.2-1), so a value changed meanwhile is not in them. */
proctype Handshake() {
    atomic { REKEYS > 0 -> side[0].told = side[0].newest }
    atomic { side[1].told = side[1].newest; embryo = true;
        if
        :: forgotten = true
        :: skip
        fi }
    atomic { rekey(0, side[0].told, side[1].told) }
}

proctype Adversary() {
    bit s;
    bit old, probe, keys, old2, probe2, keys2;
    byte version, value, ack, named, version2, value2, ack2, named2;
    do
    :: atomic { losses > 0 && nempty(net[0]) -> losses--;
        net[0]?old, probe, keys, version, value, ack, named }
    :: atomic { losses > 0 && nempty(net[1]) -> losses--;
        net[1]?old, probe, keys, version, value, ack, named }
    :: atomic { swaps > 0 && len(net[0]) == 2 -> swaps--; s = 0; goto swap }
    :: atomic { swaps > 0 && len(net[1]) == 2 -> swaps--; s = 1;
swap:   net[s]?old, probe, keys, version, value, ack, named;
        net[s]?old2, probe2, keys2, version2, value2, ack2, named2;
        net[s]!old2, probe2, keys2, version2, value2, ack2, named2;
        net[s]!1, probe, keys, version, value, ack, named;
        s = 0; old = 0; probe = 0; keys = 0; version = 0; value = 0; ack = 0; named = 0;
        old2 = 0; probe2 = 0; keys2 = 0; version2 = 0; value2 = 0; ack2 = 0; named2 = 0 }
    od
}

init {
    atomic {
        byte s;
        for (s : 0 .. 1) {
            side[s].confirmed = true; side[s].settled = true;
            side[s].mine = 1; side[s].theirs = 1; side[s].ack_in = NONE;
            side[s].unused = VERSIONS - 1;
            if
            :: slow = slow | (1 << (4 * s))
            :: skip
            fi
        }
        changes[0] = CHANGES0; changes[1] = CHANGES1;
        for (s : 0 .. 1) {
            run Application(s); run Prober(s); run Replier(s); run Receiver(s)
        }
        run Handshake();
        run Adversary()
    }
}
