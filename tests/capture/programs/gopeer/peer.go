// SPDX-License-Identifier: Apache-2.0

// gopeer talks to itself over crypto/tls and reports what each end of each connection moved.
//
// It prints {"event":"ready"}, waits for a line on standard input, plays its scene, and prints one
// "done" for every end: addresses, and for each direction the number of bytes, of calls that moved
// any, and the SHA-256 of the bytes. Written for Go 1.15 and everything after it, without modules.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

type options struct {
	scene       string
	connections int
	rounds      int
	size        int
	version     string
	network     string
	seconds     int
	keyLog      string
	address     string
}

var versions = map[string]uint16{
	"1.0": tls.VersionTLS10, "1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13,
}

var printing sync.Mutex

func report(fields map[string]interface{}) {
	text, _ := json.Marshal(fields)
	printing.Lock()
	defer printing.Unlock()
	fmt.Println(string(text))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gopeer:", err)
		os.Exit(1)
	}
}

// What passed in one direction.
type tally struct {
	digest hash.Hash
	bytes  int64
	calls  int64
}

func newTally() *tally { return &tally{digest: sha256.New()} }

func (t *tally) add(content []byte) {
	if len(content) > 0 {
		t.digest.Write(content)
		t.bytes += int64(len(content))
		t.calls++
	}
}

func (t *tally) told() map[string]interface{} {
	return map[string]interface{}{
		"bytes": t.bytes, "calls": t.calls, "sha256": hex.EncodeToString(t.digest.Sum(nil)),
	}
}

// A TLS connection that keeps count. It calls crypto/tls directly, not through an interface.
type counted struct {
	*tls.Conn
	side          string
	read, written *tally
	once          sync.Once
}

func count(side string, connection *tls.Conn) *counted {
	return &counted{Conn: connection, side: side, read: newTally(), written: newTally()}
}

func (c *counted) Read(buffer []byte) (int, error) {
	n, err := c.Conn.Read(buffer)
	c.read.add(buffer[:n])
	return n, err
}

func (c *counted) Write(buffer []byte) (int, error) {
	n, err := c.Conn.Write(buffer)
	c.written.add(buffer[:n])
	return n, err
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.tell)
	return err
}

func (c *counted) tell() {
	report(map[string]interface{}{
		"event": "done", "side": c.side, "pid": os.Getpid(),
		"local": c.LocalAddr().String(), "remote": c.RemoteAddr().String(),
		"read": c.read.told(), "write": c.written.told(),
	})
}

func configs(wanted options) (*tls.Config, *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	fail(err)
	version, known := versions[wanted.version]
	if !known {
		fail(errors.New("no such version of TLS"))
	}
	server := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{signed}, PrivateKey: key}},
		MinVersion:   version, MaxVersion: version,
	}
	if version == tls.VersionTLS10 {
		server.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	}
	client := server.Clone()
	client.Certificates = nil
	client.InsecureSkipVerify = true
	client.ServerName = "localhost"
	return server, client
}

func listen(wanted options) net.Listener {
	host := "127.0.0.1:0"
	if wanted.network == "tcp6" {
		host = "[::1]:0"
	}
	listener, err := net.Listen(wanted.network, host)
	fail(err)
	return listener
}

func random(size int) []byte {
	content := make([]byte, size)
	_, err := rand.Read(content)
	fail(err)
	return content
}

// A connection of a type that nobody outside of this program knows.
type wrapped struct {
	note string
	net.Conn
}

// One whose work is done by a goroutine of its own: the caller makes no socket call.
type relayed struct{ net.Conn }

func (r relayed) Read(buffer []byte) (n int, err error) {
	done := make(chan struct{})
	go func() { n, err = r.Conn.Read(buffer); close(done) }()
	<-done
	return
}

func (r relayed) Write(buffer []byte) (n int, err error) {
	done := make(chan struct{})
	go func() { n, err = r.Conn.Write(buffer); close(done) }()
	<-done
	return
}

func dress(scene string, connection net.Conn) net.Conn {
	switch scene {
	case "wrapped":
		return &wrapped{"as many do", connection}
	case "relayed":
		return relayed{connection}
	}
	return connection
}

//go:noinline
func deeper(levels int, work func()) byte {
	var filling [512]byte
	if levels == 0 {
		work()
	} else {
		filling[levels%512] = deeper(levels-1, work)
	}
	return filling[levels%512]
}

// A goroutine begins with a small stack, so that the first calls must move it.
func fresh(work func()) {
	done := make(chan struct{})
	go func() { work(); close(done) }()
	<-done
}

// Reads with a buffer that lies on the stack, which moves while the call runs.
//
//go:noinline
func readOnStack(c *counted) (int, error) {
	var buffer [1500]byte
	n, err := c.Conn.Read(buffer[:])
	c.read.add(append([]byte(nil), buffer[:n]...)) // a copy: what is hashed cannot stay on the stack
	return n, err
}

func exchange(wanted options, c *counted, first bool) {
	message := random(wanted.size)
	buffer := make([]byte, 4096+wanted.size/3)
	send := func(round int) {
		work := func() {
			length := wanted.size
			if round%2 == 1 {
				length = 1 + wanted.size/7
			}
			_, err := c.Write(message[:length])
			fail(err)
		}
		fresh(func() { deeper(round%40, work) })
	}
	receive := func(round int) {
		left := wanted.size
		if round%2 == 1 {
			left = 1 + wanted.size/7
		}
		for left > 0 {
			var n int
			var err error
			work := func() {
				if left <= 3000 {
					n, err = readOnStack(c)
				} else {
					n, err = c.Read(buffer[:min(left, len(buffer))])
				}
			}
			fresh(work)
			fail(err)
			left -= n
			runtime.Gosched()
		}
	}
	until := time.Now().Add(time.Duration(wanted.seconds) * time.Second)
	for round, enough := 0, false; !enough; round++ {
		if first {
			send(round)
			receive(round)
		} else {
			receive(round)
			send(round)
		}
		enough = round+1 >= wanted.rounds
		if wanted.seconds > 0 {
			enough = agree(c, first, enough && time.Now().After(until))
		}
	}
}

// Both ends go on until the client says that it was enough.
func agree(c *counted, first, enough bool) bool {
	word := []byte{0}
	if first {
		if enough {
			word[0] = 1
		}
		_, err := c.Write(word)
		fail(err)
	} else {
		_, err := io.ReadFull(c, word)
		fail(err)
	}
	return word[0] == 1
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func playRaw(wanted options, serverSide, clientSide *tls.Config) {
	listener := listen(wanted)
	var all sync.WaitGroup
	for i := 0; i < wanted.connections; i++ {
		all.Add(2)
		go func() {
			defer all.Done()
			plain, err := listener.Accept()
			fail(err)
			server := count("server", tls.Server(dress(wanted.scene, plain), serverSide))
			exchange(wanted, server, false)
			_, err = server.Read(make([]byte, 1))
			if err != io.EOF {
				fail(fmt.Errorf("instead of the end came %v", err))
			}
			fail(server.Close())
		}()
		go func() {
			defer all.Done()
			plain, err := net.Dial(wanted.network, listener.Addr().String())
			fail(err)
			client := count("client", tls.Client(dress(wanted.scene, plain), clientSide))
			exchange(wanted, client, true)
			fail(client.Close())
		}()
	}
	all.Wait()
}

func play(words []string) int {
	flags := flag.NewFlagSet("gopeer", flag.ExitOnError)
	var wanted options
	flags.StringVar(&wanted.scene, "scene", "raw", "raw, wrapped, relayed, http1, http2, dial or serve")
	flags.IntVar(&wanted.connections, "connections", 1, "at the same time")
	flags.IntVar(&wanted.rounds, "rounds", 4, "messages each way")
	flags.IntVar(&wanted.size, "size", 1000, "bytes of every other message")
	flags.StringVar(&wanted.version, "tls", "1.3", "version of TLS")
	flags.StringVar(&wanted.network, "network", "tcp4", "tcp4 or tcp6")
	flags.IntVar(&wanted.seconds, "seconds", 0, "go on for so long")
	flags.StringVar(&wanted.keyLog, "keylog", "", "where the server logs its keys")
	flags.StringVar(&wanted.address, "address", "", "whom to dial")
	flags.Parse(words)
	serverSide, clientSide := configs(wanted)
	logKeys(wanted.keyLog, serverSide)
	report(map[string]interface{}{"event": "ready", "pid": os.Getpid(), "go": runtime.Version()})
	bufio.NewReader(os.Stdin).ReadString('\n')
	switch wanted.scene {
	case "http1", "http2":
		playHTTP(wanted, serverSide, clientSide)
	case "dial", "serve":
		playAlone(wanted, serverSide, clientSide)
	default:
		playRaw(wanted, serverSide, clientSide)
	}
	report(map[string]interface{}{"event": "end"})
	return 0
}
