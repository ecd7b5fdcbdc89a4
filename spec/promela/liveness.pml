/*
 * Liveness of one side (7.1 to 7.7): facts, suspicion, verdict, own stall, the way back from DOWN.
 *
 * The side under test runs the text's rules in ticks of a discrete clock. Peer and network are one
 * adversary: it loses, delays, hoards, reorders, replays and forges frames as its budgets allow, and
 * kills the peer. Only what an honest peer can have sent is genuine: a genuine frame tells
 * how long ago the newest frame was sent that the peer has heard. Ghosts (g_...) hold what really
 * happened; properties speak of ghosts, never of what the side believes.
 *
 * Every time is an age in ticks, up to the greatest that matters. One tick is one atomic step.
 */

#ifndef RESPONDER
#define RESPONDER 0
#endif
#define PTO 1
#define T 2                 /* J(T, m, r): 1 or 2 ticks */
#ifndef DEADLINE
#define DEADLINE 4          /* fixed multiplier 2 */
#endif
#define MIN_SUSPICION 1
#if DEADLINE > 5
#define LONGEST DEADLINE    /* L = max(DEADLINE, T + 2 PTO + MIN_SUSPICION) (7.2) */
#else
#define LONGEST 5
#endif
#define BACKOFF 4           /* the longest wait in DOWN; 8 T in the protocol (KA-7.6-1) */
#if DEADLINE > 6
#define BASE_MOST DEADLINE
#else
#define BASE_MOST (2 * T + 2 * PTO)
#endif
#define UP_CONFIRMATIONS 2
#define OLD (LONGEST + 1)   /* of a date: stale */
#define NONE (PTO + 1)      /* of `waiting`: no probe awaits its reply */
#ifndef STALLS
#define STALLS 1
#endif
#define ENDLESS 9
#define LONGEST_STALL 3
#ifndef SLOWEST
#define SLOWEST 3           /* ticks that a frame takes to the peer at most; 0: none comes there */
#endif
#ifndef HOARD
#define HOARD 1             /* frames of the peer in flight at one time */
#endif

mtype = { up, suspect, half_open, down };
mtype = { nothing, probe, reply };

mtype state = up;
byte round_trip = 0;        /* age of the round-trip fact */
byte base = 0;              /* age of the base of the verdict: the same less excuses (7.7) */
byte rx = 0;                /* age of the rx fact */
byte last_probe = 0;
byte waiting = NONE;        /* age of the earliest probe since the round-trip fact */
byte suspicion = 0;         /* its age */
bool heard_in_suspicion;
bool from_half_open;
byte probes = 0;            /* in this suspicion, up to 3 */
byte third = 0;             /* age of the third */
byte verdict = 0;           /* age of the verdict, in DOWN */
byte confirmations = 0;     /* dated after it */
byte no_judgement = 0;      /* ticks for which none is passed (KA-7.7-1) */
byte allowance = LONGEST;   /* what may still be excused (KA-7.7-3); 10 min are for ever here */

byte sent = 1;              /* bit n: a frame was sent n ticks ago */
bool dead;
bool good;                  /* from now on the network is, and the peer lives */
byte peer_heard = 0;        /* age of the newest frame that the peer has heard */
mtype flight[HOARD];        /* what comes from the peer */
byte flight_date[HOARD];    /* age of the newest frame that it confirms */
byte stalls = STALLS;
byte stalled = 0;           /* ticks still to go */
byte late = 0;              /* ticks that this stall has lasted */
bool ticked;

byte g_evidence = 0;        /* ticks run since the date of the newest fresh evidence that came in */
byte g_rx = 0;              /* ticks since a genuine frame moved the rx fact */
byte g_probes = 0;          /* frames sent since evidence came in */
byte g_verdict = 0;         /* age of the verdict */
byte g_confirmations = 0;   /* frames that came in since DOWN and confirm frames sent after it */
byte g_newest = 0;          /* age of the newest frame ever confirmed */
byte g_excuses = LONGEST;
byte g_dead = 0;            /* ticks run since the last sign of life of a peer that is dead */

#define BIT(n) (1 << (n))
#define older(age, most) age = (age < (most) -> age + 1 : age)
#define younger(age, by) age = (age > by -> age - (by) : 0)

/* S: UP is said only where the peer heard something sent in the last ticks run. */
#ifndef UP_WITHIN
#define UP_WITHIN 7
#endif
#define G_MOST (UP_WITHIN + 1)
ltl up_is_recent { [] (state != up || g_evidence <= UP_WITHIN) }
/* S: a dead peer is found in bounded time, hoarded frames and excuses aside. */
#ifndef FOUND_WITHIN
#define FOUND_WITHIN 16
#endif
ltl dead_peer_is_found { [] (g_dead < FOUND_WITHIN || state == down) }
/* L: and with all of that, it is found. */
ltl dead_peer_stays_found { [] (dead -> <> [] (state == down)) }
/* L: a pair that can reach each other comes UP, and stays. */
ltl reachable_pair_is_up { [] (good -> <> [] (state == up)) }
/* L: no probe livelock: time goes on. */
ltl time_goes_on { ([] <> ticked) && ([] <> !ticked) }

inline send_probe() {
#ifdef MISTAKE_SENDING_IS_HEARING
    rx = 0; round_trip = 0; base = 0;
#endif
    sent = sent | 1;
    last_probe = 0;
    waiting = (waiting == NONE -> 0 : waiting);
    g_probes = (g_probes < 4 -> g_probes + 1 : 4);
    if
    :: state == suspect && probes < 3 -> probes++; third = 0
    :: else
    fi
}

inline go_up() {
    state = up; probes = 0; suspicion = 0; third = 0; verdict = 0; confirmations = 0;
    g_verdict = 0; g_confirmations = 0; heard_in_suspicion = false; from_half_open = false
}

/* KA-7.4-1 */
inline go_suspect() {
    from_half_open = (state == half_open);
    state = suspect; suspicion = 0; probes = 0; third = 0; heard_in_suspicion = false;
    send_probe()
}

/* KA-7.5-2, KA-7.5-5 */
inline pass_verdict() {
    if
    :: heard_in_suspicion || rx <= T + PTO -> state = half_open
    :: else ->
        assert(g_evidence >= DEADLINE || from_half_open);   /* silence lasted, stalls aside */
        assert(g_probes >= 3);                              /* one miss is never DOWN, nor two */
        assert(g_rx > T + PTO);                             /* HALF_OPEN otherwise */
        state = down; verdict = 0; g_verdict = 0; confirmations = 0; g_confirmations = 0
    fi;
    suspicion = 0; probes = 0; third = 0; heard_in_suspicion = false; from_half_open = false;
    send_probe()
}

/* KA-7.2-1, KA-7.2-3, KA-7.1-3: evidence is what confirms a frame not confirmed before. */
inline evidence(date) {
    if
#ifdef MISTAKE_STALE_EVIDENCE_COUNTS
    :: date < round_trip || date == OLD ->
#else
    :: date < round_trip && date <= LONGEST ->
#endif
        round_trip = date;
        base = (date < base -> date : base);
        /* KA-7.3-1, KA-7.3-2: probes sent since that date have a PTO from now at least. */
        waiting = ((sent & (BIT(date) - 1)) != 0 -> 0 : NONE);
        if
        :: state == suspect || state == half_open -> go_up()
#ifdef MISTAKE_STALE_EVIDENCE_COUNTS
        :: state == down ->
#else
        :: state == down && date < verdict ->       /* KA-7.6-2 */
#endif
            confirmations++;
            if
            :: confirmations >= UP_CONFIRMATIONS ->
                assert(g_confirmations >= UP_CONFIRMATIONS);
                go_up()
            :: else
            fi
        :: else
        fi
    :: else
    fi
}

inline note_rx() { rx = 0; heard_in_suspicion = (state == suspect) }

/* KA-7.1-2 */
inline receive(kind, date) {
    if
    :: kind == probe -> note_rx(); sent = sent | 1
    :: kind == reply && date <= LONGEST -> note_rx()
    :: else
    fi;
    evidence(date)
}

/* What really happens when a genuine frame comes in for the first time. */
inline observe(kind, date) {
    if
    :: date < g_newest && date <= LONGEST ->
        g_evidence = (date < g_evidence -> date : g_evidence);
        g_probes = 0;
        g_confirmations = (state == down && date < g_verdict -> g_confirmations + 1 : g_confirmations)
    :: else
    fi;
    g_newest = (date < g_newest -> date : g_newest);
    if
    :: kind == probe || date <= LONGEST -> g_rx = 0; g_dead = 0
    :: else
    fi
}

/* The peer hears a frame that was sent at some time, and sends frames, if there is room. */
inline peer_acts() {
    byte n, slot;
    if
    :: dead || good
    :: !dead && !good -> dead = true; peer_heard = OLD
    :: !dead && !good -> good = true;
        for (slot : 0 .. HOARD - 1) { flight[slot] = nothing; flight_date[slot] = 0 }
    :: !dead && !good ->
        slot = 0;
        do
        :: slot < HOARD && flight[slot] != nothing -> slot++
        :: else -> break
        od;
        if
        :: SLOWEST >= 1 -> n = 1    /* how long a frame that arrives now was on its way */
        :: SLOWEST >= 2 -> n = 2
        :: SLOWEST >= 3 -> n = 3
        :: n = OLD                  /* none does */
        fi;
        if
        :: n < OLD && (sent & BIT(n)) != 0 && n < peer_heard -> peer_heard = n;
            if
            :: slot < HOARD -> flight[slot] = reply; flight_date[slot] = peer_heard
            :: true
            fi
        :: n == OLD && slot < HOARD -> flight[slot] = probe; flight_date[slot] = peer_heard
        :: n == OLD
        :: else
        fi
    fi;
    n = 0; slot = 0
}

/* Frames in flight come in now, later, or never. */
inline network() {
    byte m;
    mtype what;
    byte when;
    m = 0;
    do
    :: m < HOARD ->
        if
        :: flight[m] != nothing ->
            what = flight[m]; when = flight_date[m];
            flight[m] = nothing; flight_date[m] = 0;
            observe(what, when);
            receive(what, when)
        :: flight[m] != nothing -> flight[m] = nothing; flight_date[m] = 0
        :: true
        fi;
        m++
    :: else -> break
    od;
    m = 0; what = nothing; when = 0;
    if
    :: true
#ifdef MISTAKE_NO_REPLAY_WINDOW             /* KA-5.1-1 */
    :: true -> receive(probe, OLD)
    :: true -> receive(reply, g_newest)
#endif
#ifdef MISTAKE_TAG_UNCHECKED                /* KA-2-4 */
    :: true -> receive(probe, 0)
    :: true -> receive(reply, 0)
#endif
    fi
}

/* A good network: what was sent in the last tick is heard and answered; an initiator probes. */
inline good_network() {
    if
    :: sent & BIT(1) -> peer_heard = 1; observe(reply, 1); receive(reply, 1)
    :: RESPONDER && !(sent & BIT(1)) -> observe(probe, peer_heard); receive(probe, peer_heard)
    :: else
    fi
}

/* 7.7 */
#ifdef MISTAKE_STALL_NOT_EXCUSED
#define EXCUSED false
#elif defined(MISTAKE_STALL_WITHOUT_ALLOWANCE)
#define EXCUSED (late > 0)
#else
#define EXCUSED (late > 0 && allowance >= PTO)
#endif

inline excuse() {
    if
    :: EXCUSED ->
#ifndef MISTAKE_STALL_WITHOUT_ALLOWANCE
        late = (late < allowance -> late : allowance);
        allowance = allowance - late;
#endif
        younger(base, late);
        younger(suspicion, late);
        no_judgement = PTO
    :: else
    fi;
    late = 0
}

#define OVERDUE (waiting == PTO \
    || (RESPONDER && (rx >= T + PTO || base >= 2 * T + 2 * PTO)))   /* KA-7.3-1, KA-7.3-3 */
#define OVERDUE_IN_HALF_OPEN (rx >= 3 * T + PTO)                    /* KA-7.3-5 */
#ifdef MISTAKE_TWO_MISSES_ARE_DOWN
#define ASKED_ENOUGH true
#else
#define ASKED_ENOUGH (probes >= 3 && third >= PTO)
#endif
#define VERDICT_IS_DUE ((from_half_open -> rx : base) >= DEADLINE && suspicion >= MIN_SUSPICION \
    && ASKED_ENOUGH)                                                /* KA-7.5-1 */

inline judge() {
    if
    :: no_judgement > 0 ->
        if
        :: state == up && OVERDUE -> send_probe()
        :: state == half_open && OVERDUE_IN_HALF_OPEN -> send_probe()
        :: state == suspect && VERDICT_IS_DUE -> send_probe()
        :: else
        fi
    :: else ->
        if
        :: state == up && OVERDUE -> go_suspect()
        :: state == half_open && OVERDUE_IN_HALF_OPEN -> go_suspect()
#ifdef MISTAKE_HALF_OPEN_EXPIRES
        :: state == half_open && base >= DEADLINE -> state = down; verdict = 0; g_verdict = 0;
            assert(g_rx > T + PTO)
#endif
        :: state == suspect && VERDICT_IS_DUE -> pass_verdict()
        :: else
        fi
    fi
}

/* Probes of each state, as often as jitter, spacing and budget allow, or as rarely. */
inline cadence() {
    if
    :: last_probe == 0                                                  /* a judgement sent one */
    :: last_probe > 0 && state == up && !RESPONDER && last_probe < T    /* KA-8.2-1 */
    :: last_probe > 0 && state == up && !RESPONDER -> send_probe()
    :: last_probe > 0 && state == up && RESPONDER                       /* KA-7.3-4 */
    :: last_probe > 0 && state == suspect && last_probe < T             /* KA-7.4-2, KA-7.4-4 */
    :: last_probe > 0 && state == suspect -> send_probe()
    :: last_probe > 0 && state == half_open && last_probe < T           /* KA-7.5-4 */
    :: last_probe > 0 && state == half_open -> send_probe()
#ifdef MISTAKE_DOWN_IS_SILENT
    :: last_probe > 0 && state == down
#else
    :: last_probe > 0 && state == down && last_probe < BACKOFF          /* KA-7.6-1 */
    :: last_probe > 0 && state == down -> send_probe()
#endif
    fi
}

inline tick() {
    older(round_trip, OLD); older(base, BASE_MOST); older(rx, 3 * T + PTO);
    older(last_probe, BACKOFF); older(suspicion, MIN_SUSPICION); older(third, PTO);
    older(verdict, OLD); older(peer_heard, OLD);
    older(g_rx, T + PTO + 1); older(g_verdict, OLD); older(g_newest, OLD);
    waiting = (waiting < PTO -> waiting + 1 : waiting);
    sent = (sent << 1) & (BIT(OLD) - 1);
    byte k;
    for (k : 0 .. HOARD - 1) {
        flight_date[k] = (flight[k] != nothing && flight_date[k] < OLD -> flight_date[k] + 1
                          : flight_date[k])
    }
    k = 0;
    no_judgement = (no_judgement > 0 -> no_judgement - 1 : 0);
    if
    :: stalled > 0 && g_excuses > 0 -> g_excuses--
    :: else -> older(g_evidence, G_MOST);
        g_dead = (dead && g_dead < FOUND_WITHIN -> g_dead + 1 : g_dead)
    fi;
    ticked = !ticked
}

init {
    byte i;
#ifdef MISTAKE_REARMED_AT_NOW
    bool again;
#endif
    atomic {
        for (i : 0 .. HOARD - 1) { flight[i] = nothing };
        i = 0
    }
    do
    :: atomic {
        tick();
        if
        :: stalled > 0 -> stalled--; late++; peer_acts()
        :: stalled == 0 && late == 0 && stalls > 0 && !good ->
            stalls = (stalls < ENDLESS -> stalls - 1 : ENDLESS);
            if
            :: stalled = 1
            :: stalled = LONGEST_STALL
            fi;
            peer_acts()
        :: stalled == 0 ->
            peer_acts();
            if
            :: good -> good_network()
            :: else -> network()
            fi;
            excuse();
            judge();
            cadence()
        fi }
#ifdef MISTAKE_REARMED_AT_NOW                           /* KA-8.2-3: its timer fires again */
    :: state == suspect -> again = !again
#endif
    od
}
