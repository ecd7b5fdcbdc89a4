/*
 * Path validation (9.3): a peer whose NAT rebinds, and somebody who forwards its frames faster than
 * the network does, from an address of his own or in the name of a victim.
 *
 * One side is modelled, the one that validates; the peer is the initiator: it probes and answers
 * challenges. A copy that comes in first is accepted, and the frame copied is a replay then
 * (KA-5.1-1). A challenge is a number; whoever holds it has seen the challenge itself. The time of
 * a try is over when nothing between the two ends is on its way any more (PTO is the longer).
 */

#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef REBINDS
#define REBINDS 1
#endif
#ifndef COPIES
#define COPIES 3
#endif
#ifndef ANSWERS
#define ANSWERS 2           /* challenges that the forwarder has the peer answer */
#endif
#define TRIES 3

#define HOME 0
#define NEW 1
#define FORWARDER 2
#define VICTIM 3
#define NOWHERE 7

/* data of a challenge: 1 + 4 * (number of the try, modulo 3) + address */
#define CHALLENGE(address) (1 + 4 * nonce + (address))

byte at = HOME;                             /* the peer's address */
byte session = HOME;                        /* the session's address, here */
byte candidate = NOWHERE;                   /* NOWHERE: no validation is under way */
byte nonce, tries;
bool session_answered, candidate_answered;
bool rested = true;                         /* T has passed since a validation without a move */
byte losses = LOSSES, rebinds = REBINDS, copies = COPIES, answers = ANSWERS;

/*                   source, data of a PATH_RESPONSE or 0, a replay or not */
chan inbound = [2] of   { byte, byte, bool };
/*                   destination, data of a PATH_CHALLENGE */
chan outbound = [2] of  { byte, byte };
/* challenges that reached the forwarder, and are not answered yet */
chan held = [1] of { byte };

/* S: nobody is made to receive what he did not ask for. */
ltl victim_is_left_alone { [] (session != VICTIM) }
/* S: who merely forwards frames of a peer that answers does not get the session (no loss). */
ltl forwarder_gets_nothing { [] (session != FORWARDER) }
/* L: the session follows its peer in the end. */
ltl session_follows { <> [] (session == at) }

inline challenge() {
    nonce = (nonce + 1) % 3;
    session_answered = false; candidate_answered = false;
    outbound!candidate, CHALLENGE(candidate);
#ifndef MISTAKE_OLD_ADDRESS_NOT_ASKED
    outbound!session, CHALLENGE(session)
#endif
}

inline end_validation() {
    candidate = NOWHERE; tries = 0; session_answered = false; candidate_answered = false
}

inline answered(source, data) {
    if
    :: candidate != NOWHERE && data == CHALLENGE(session) -> session_answered = true
    :: else
    fi;
    if
#ifdef MISTAKE_SOURCE_STANDS_FOR_DATA
    :: candidate != NOWHERE && data != 0 && source == candidate -> candidate_answered = true
#else
    :: candidate != NOWHERE && data == CHALLENGE(candidate) -> candidate_answered = true
#endif
    :: else
    fi;
    if
    :: session_answered -> end_validation(); rested = false          /* KA-9.3-3 */
    :: else
    fi
}

/* Nothing of the validation under way is between the ends. */
#define TRY_IS_OVER (candidate != NOWHERE && len(outbound) == 0 && len(inbound) == 0)

active proctype Side() {
    byte source, data;
    bool replay;
    do
    :: atomic { nempty(inbound) -> inbound?source, data, replay;
        if
        :: !replay ->
            answered(source, data);
            if
#ifdef MISTAKE_MOVES_AT_ONCE
            :: source != session -> session = source
#else
            :: source != session && candidate == NOWHERE && rested ->   /* KA-9.3-1 */
                candidate = source; tries = 1;
                challenge()
#endif
            :: else
            fi
        :: else
        fi;
        source = 0; data = 0; replay = false }
    :: atomic { TRY_IS_OVER ->                                          /* KA-9.3-4 */
        if
        :: candidate_answered -> session = candidate; end_validation()
        :: !candidate_answered && tries < TRIES -> tries++; challenge()
        :: else -> end_validation(); rested = false
        fi }
    od
}

active proctype Peer() {
    byte where, data;
    do
    :: atomic { nfull(inbound) && nempty(outbound) -> outbound?where, data;
        if
        :: where == at -> inbound!at, data, false                            /* KA-9.3-2 */
        :: where == FORWARDER && nfull(held) -> held!data
        :: else                                                         /* it reaches nobody */
        fi;
        where = 0; data = 0 }
    :: atomic { candidate == NOWHERE && len(outbound) == 0 && len(inbound) == 0 ->
#ifndef MISTAKE_NEVER_AGAIN
        rested = true;                                                  /* KA-9.3-5 */
#endif
        inbound!at, 0, false }                                          /* a PROBE, each T */
    od
}

active proctype Adversary() {
    byte source, data;
    do
    :: atomic { rebinds > 0 -> rebinds--; at = NEW }
    :: atomic { losses > 0 && nempty(inbound) -> losses--; inbound?_, _, _ }
    :: atomic { losses > 0 && nempty(outbound) -> losses--; outbound?_, _ }
    :: atomic { copies > 0 && len(inbound) == 1 -> copies--;
        inbound?source, data, _;
        if
        :: inbound!FORWARDER, data, false
        :: inbound!VICTIM, data, false
        fi;
        inbound!source, data, true;
        source = 0; data = 0 }
    :: atomic { answers > 0 && nfull(inbound) && nempty(held) -> answers--; held?data; inbound!FORWARDER, data, false; data = 0 }
    :: atomic { nempty(held) -> held?_ }
    od
}
