// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/tls"
	"net"
	"os"
)

// One end of a connection whose other end is a program of others: a server that answers a line with
// a line, or a client that sends one.
func playAlone(wanted options, serverSide, clientSide *tls.Config) {
	var connection net.Conn
	if wanted.scene == "dial" {
		plain, err := net.Dial("tcp", wanted.address)
		fail(err)
		connection = tls.Client(plain, clientSide)
		_, err = connection.Write([]byte("a line\n"))
		fail(err)
		_, err = bufio.NewReader(connection).ReadString('\n')
		fail(err)
	} else {
		listener := listen(wanted)
		report(map[string]interface{}{"event": "listens", "address": listener.Addr().String()})
		plain, err := listener.Accept()
		fail(err)
		connection = tls.Server(plain, serverSide)
		_, err = bufio.NewReader(connection).ReadString('\n')
		fail(err)
	}
	fail(connection.Close())
}

// Go's own key log: the truth that ours is compared with.
func logKeys(path string, side *tls.Config) {
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0600)
	fail(err)
	side.KeyLogWriter = file
}
