// A kaudp peer over an unmodified quic-go: the server of datagram mode on a connection of its own.
//
// See ../README.md for the contract that every peer keeps.
package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/lucas-clemente/quic-go"
)

const alpnKaudp = "kaudp/1"

var (
	stdout     = json.NewEncoder(os.Stdout)
	stdoutLock sync.Mutex
)

func say(events ...event) {
	stdoutLock.Lock()
	defer stdoutLock.Unlock()
	for _, happened := range events {
		// Nobody is left to tell when stdout fails.
		_ = stdout.Encode(happened)
	}
}

func fail(status int, format string, values ...any) {
	fmt.Fprintf(os.Stderr, "quic_go: "+format+"\n", values...)
	os.Exit(status)
}

// talk answers the heartbeats of one connection until it ends.
func talk(connection quic.Connection) {
	side := newResponder()
	for {
		frame, err := connection.ReceiveMessage()
		if err != nil {
			return
		}
		answer, events := side.receive(frame, canonical(connection.RemoteAddr().(*net.UDPAddr)))
		// Blocks until the frame is in a packet, so at most one waits (14.2). It refuses what the
		// peer does not allow, which is then as good as lost.
		if answer != nil {
			_ = connection.SendMessage(answer)
		}
		say(events...)
	}
}

func serve(arguments []string) {
	flags := flag.NewFlagSet("quic_go serve", flag.ExitOnError)
	port := flags.Int("port", 0, "UDP `port` on 127.0.0.1")
	cert := flags.String("cert", "", "PEM `file` of the certificate")
	key := flags.String("key", "", "PEM `file` of its key")
	alpn := flags.String("alpn", alpnKaudp, "ALPN `protocol`")
	mode := flags.String("mode", "datagram", "`mode` of kaudp")
	reset := flags.String("reset-key", "", "32 bytes in `hex`: what a restarted server needs for stateless resets")
	_ = flags.Parse(arguments)
	if *port == 0 || *cert == "" || *key == "" {
		flags.Usage()
		os.Exit(2)
	}
	if *mode != "datagram" {
		fail(127, "no mode %s", *mode)
	}
	resetKey, err := hex.DecodeString(*reset)
	if err != nil || len(resetKey) != 0 && len(resetKey) != 32 {
		fail(2, "--reset-key is not 32 bytes in hex")
	}
	certificate, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		fail(1, "%v", err)
	}
	listener, err := quic.ListenAddr(
		fmt.Sprintf("127.0.0.1:%d", *port),
		&tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{*alpn}},
		&quic.Config{
			EnableDatagrams:   true,
			MaxIdleTimeout:    30 * time.Second,
			StatelessResetKey: resetKey,
		},
	)
	if err != nil {
		fail(1, "%v", err)
	}
	say(event{Event: "ready", Port: *port})
	for {
		connection, err := listener.Accept(context.Background())
		if err != nil {
			fail(1, "%v", err)
		}
		if *alpn == alpnKaudp {
			go talk(connection)
		}
	}
}

func main() {
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		os.Exit(0)
	}()
	if len(os.Args) < 2 {
		fail(2, "usage: quic_go serve --port P --cert C --key K")
	}
	if os.Args[1] != "serve" {
		fail(127, "no command %s", os.Args[1])
	}
	serve(os.Args[2:])
}
