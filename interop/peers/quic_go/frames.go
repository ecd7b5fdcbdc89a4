package main

// Carried frames of kaudp (spec/kaudp.md, sections 3 and 14.1) and the side that answers; no I/O.
//
// Written from the specification alone: it shares nothing with the library or the other peers.

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net"
	"time"
)

const (
	typeInit     = 0x01
	typeResponse = 0x02
	typeProbe    = 0x08
	typeReply    = 0x09
	typeClose    = 0x0a

	optionAddressSeen = 0x01
	optionParameters  = 0x02
	optionCloseReason = 0x05

	stateUp     = 1
	stateClosed = 6

	handshakeBytes = 52
	transportBytes = 48
	maxFrameBytes  = 512
	maxOptions     = 16
	// A side keeps this many sessions of a connection; each new INIT makes one.
	maxSessions = 8
	maxUint32   = 1<<32 - 1
)

var optionBytes = map[byte][]int{
	optionAddressSeen: {7, 19},
	optionParameters:  {16},
	0x03:              {4},
	0x04:              {4},
	optionCloseReason: {2},
	0x06:              {8},
	0x07:              {8},
}

// errRefused says that what came is no frame, or not one to act on.
var errRefused = errors.New("refused")

type sessionID [8]byte

type event struct {
	Event        string  `json:"event"`
	Port         int     `json:"port,omitempty"`
	PacketNumber uint64  `json:"packet_number,omitempty"`
	Reason       *uint16 `json:"reason,omitempty"`
	Total        uint64  `json:"total,omitempty"`
}

// canonical gives the canonical bytes of an address (9.2).
func canonical(address *net.UDPAddr) []byte {
	family, ip := byte(6), address.IP.To16()
	if v4 := address.IP.To4(); v4 != nil {
		family, ip = 4, v4
	}
	bytes := binary.BigEndian.AppendUint16([]byte{family}, uint16(address.Port))
	return append(bytes, ip...)
}

func head(kind byte, id sessionID) []byte {
	return append([]byte{0x0b, kind, 0x81, 0x00}, id[:]...)
}

func option(kind byte, value []byte) []byte {
	return append([]byte{kind, byte(len(value))}, value...)
}

func random8() (bytes sessionID) {
	if _, err := rand.Read(bytes[:]); err != nil {
		panic(err)
	}
	return bytes
}

func legalParameters(b []byte) bool {
	return binary.BigEndian.Uint32(b) != 0 && binary.BigEndian.Uint16(b[12:]) != 0
}

func legalOption(kind byte, value []byte) bool {
	if kind >= 0x80 {
		return false
	}
	lengths, known := optionBytes[kind]
	fits := !known
	for _, length := range lengths {
		fits = fits || length == len(value)
	}
	if !fits {
		return false
	}
	switch kind {
	case optionAddressSeen:
		return value[0] == 4 && len(value) == 7 || value[0] == 6 && len(value) == 19
	case optionParameters:
		return legalParameters(value)
	}
	return true
}

// parseOptions gives the options of a frame by type; of those that may stand twice, the last.
func parseOptions(b []byte, closing bool) (map[byte][]byte, error) {
	options := map[byte][]byte{}
	for count := 1; len(b) > 0; count++ {
		if count > maxOptions || len(b) < 2 || len(b) < 2+int(b[1]) {
			return nil, errRefused
		}
		kind, value := b[0], b[2:2+int(b[1])]
		_, twice := options[kind]
		_, known := optionBytes[kind]
		if !legalOption(kind, value) || twice && known {
			return nil, errRefused
		}
		options[kind] = value
		b = b[2+len(value):]
	}
	if _, has := options[optionCloseReason]; has != closing {
		return nil, errRefused
	}
	return options, nil
}

// isFrame tells whether length and first four bytes are those of a carried frame (14.1).
func isFrame(b []byte) bool {
	if len(b) < transportBytes || len(b) > maxFrameBytes || b[0] != 0x0b || b[2] != 0x81 || b[3] != 0 {
		return false
	}
	switch b[1] {
	case typeInit, typeResponse:
		return len(b) >= handshakeBytes
	case typeProbe, typeReply, typeClose:
		return true
	}
	return false
}

// session is the responder's side of a session: what it has sent and received, and its answers.
type session struct {
	peer            sessionID
	origin          time.Time
	state           byte
	begun           bool
	sent            uint64
	highest         uint64
	highestSentTime uint32
	highestArrived  int64
	receivedCount   uint32
	controlSeen     byte
}

func (s *session) nowUs() int64 {
	return time.Since(s.origin).Microseconds()
}

// build makes the next frame, to a receiver whose canonical address is given.
func (s *session) build(kind byte, address, options []byte) []byte {
	s.sent++
	now := s.nowUs()
	hold := int64(0)
	if s.highest > 0 {
		hold = now - s.highestArrived
	}
	if hold > maxUint32 {
		hold = maxUint32
	}
	hash := sha256.Sum256(append(s.peer[:], address...))
	order := binary.BigEndian
	frame := order.AppendUint64(head(kind, s.peer), s.sent)
	frame = append(frame, s.state, 0, 0, s.controlSeen)
	frame = order.AppendUint32(frame, uint32(now))
	frame = order.AppendUint32(frame, s.highestSentTime)
	frame = order.AppendUint32(frame, uint32(hold))
	frame = order.AppendUint32(frame, uint32(s.highest))
	frame = order.AppendUint32(frame, s.receivedCount)
	frame = append(frame, hash[:4]...)
	return append(frame, options...)
}

// receive accepts a transport frame of this session and returns the answer and what happened.
func (s *session) receive(frame, address []byte) ([]byte, []event, error) {
	order := binary.BigEndian
	kind, number := frame[1], order.Uint64(frame[12:])
	if number < 1 || number > maxUint32 {
		return nil, nil, errRefused
	}
	// QUIC drops replays (RFC 9000, section 12.3), so each frame that comes counts once.
	s.receivedCount++
	if number > s.highest {
		s.highest, s.highestSentTime = number, order.Uint32(frame[24:])
		s.highestArrived, s.controlSeen = s.nowUs(), frame[22]
	}
	state, confirms := frame[20], order.Uint32(frame[36:])
	if state < 1 || state > 6 || uint64(confirms) > s.sent {
		return nil, nil, errRefused
	}
	options, err := parseOptions(frame[transportBytes:], kind == typeClose)
	if err != nil {
		return nil, nil, err
	}
	if s.state == stateClosed {
		return nil, nil, nil
	}
	switch kind {
	case typeClose:
		s.state = stateClosed
		reason := order.Uint16(options[optionCloseReason])
		return s.build(typeReply, address, nil), []event{{Event: "close", Reason: &reason}}, nil
	case typeProbe:
		var seen []byte
		if all := option(optionAddressSeen, address); len(frame) >= transportBytes+len(all) {
			seen = all
		}
		return s.build(typeReply, address, seen), s.probed(number), nil
	}
	return nil, nil, nil
}

func (s *session) probed(number uint64) []event {
	events := []event{{Event: "probe", PacketNumber: number}}
	if !s.begun {
		s.begun = true
		events = append([]event{{Event: "session"}}, events...)
	}
	return events
}

// responder is the side of a connection that answers INIT.
type responder struct {
	instance, epoch sessionID
	sessions        map[sessionID]*session
	// The answers to INITs seen, and the sessions they made, oldest first.
	responses map[string][]byte
	inits     []string
	ids       []sessionID
	ignored   uint64
}

func newResponder() *responder {
	return &responder{
		instance:  random8(),
		epoch:     random8(),
		sessions:  map[sessionID]*session{},
		responses: map[string][]byte{},
	}
}

// receive takes what came in a DATAGRAM frame; garbage is counted and changes nothing.
func (r *responder) receive(frame, address []byte) ([]byte, []event) {
	answer, events, err := r.accept(frame, address)
	if err != nil {
		r.ignored++
		events = []event{{Event: "ignored", Total: r.ignored}}
	}
	return answer, events
}

func (r *responder) accept(frame, address []byte) ([]byte, []event, error) {
	if !isFrame(frame) || frame[1] == typeResponse {
		return nil, nil, errRefused
	}
	id := *(*sessionID)(frame[4:12])
	if frame[1] == typeInit {
		response, err := r.respond(frame, id, address)
		return response, nil, err
	}
	s, known := r.sessions[id]
	if !known {
		return nil, nil, errRefused
	}
	return s.receive(frame, address)
}

func (r *responder) respond(init []byte, peer sessionID, address []byte) ([]byte, error) {
	if response, known := r.responses[string(init)]; known {
		return response, nil
	}
	reflected := string(init[20:28]) == string(r.epoch[:])
	if reflected || !legalParameters(init[36:handshakeBytes]) {
		return nil, errRefused
	}
	if _, err := parseOptions(init[handshakeBytes:], false); err != nil {
		return nil, err
	}
	if len(r.ids) == maxSessions {
		delete(r.sessions, r.ids[0])
		delete(r.responses, r.inits[0])
		r.ids, r.inits = r.ids[1:], r.inits[1:]
	}
	own := random8()
	r.sessions[own] = &session{peer: peer, origin: time.Now(), state: stateUp}
	response := head(typeResponse, peer)
	for _, part := range [][]byte{own[:], r.instance[:], r.epoch[:]} {
		response = append(response, part...)
	}
	// Probes each second if it were to choose, willing to be probed at any pace; 3 suspicion
	// probes at once, then 100 ms apart; no features.
	for _, value := range []uint32{1_000_000, 0, 100_000} {
		response = binary.BigEndian.AppendUint32(response, value)
	}
	response = binary.BigEndian.AppendUint16(response, 3)
	response = binary.BigEndian.AppendUint16(response, 0)
	// A RESPONSE is never longer than its INIT (4.3), so ADDRESS_SEEN needs room there.
	if seen := option(optionAddressSeen, address); len(response)+len(seen) <= len(init) {
		response = append(response, seen...)
	}
	r.responses[string(init)] = response
	r.ids, r.inits = append(r.ids, own), append(r.inits, string(init))
	return response, nil
}
