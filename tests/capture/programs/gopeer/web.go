// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io/ioutil"
	"net"
	"net/http"
	"sync"
)

// A listener whose connections keep count, for HTTP/1; HTTP/2 insists on crypto/tls's own type.
type countedListener struct {
	net.Listener
	config *tls.Config
}

func (l countedListener) Accept() (net.Conn, error) {
	plain, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return count("server", tls.Server(plain, l.config)), nil
}

func echo(answer http.ResponseWriter, request *http.Request) {
	content, err := ioutil.ReadAll(request.Body)
	fail(err)
	answer.Header().Set("X-Protocol", request.Proto)
	answer.Write(content)
}

func playHTTP(wanted options, serverSide, clientSide *tls.Config) {
	two := wanted.scene == "http2"
	listener := listen(wanted)
	server := &http.Server{Handler: http.HandlerFunc(echo), TLSConfig: serverSide}
	transport := &http.Transport{TLSClientConfig: clientSide, ForceAttemptHTTP2: two}
	if two {
		serverSide.NextProtos = []string{"h2"}
		clientSide.NextProtos = []string{"h2"}
		go server.ServeTLS(listener, "", "")
	} else {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		go server.Serve(countedListener{listener, serverSide})
		transport.DialTLS = func(network, address string) (net.Conn, error) {
			plain, err := net.Dial(network, address)
			if err != nil {
				return nil, err
			}
			return count("client", tls.Client(plain, clientSide)), nil
		}
	}
	client := &http.Client{Transport: transport}
	url := "https://" + listener.Addr().String() + "/echo"
	var all sync.WaitGroup
	for i := 0; i < wanted.connections; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for round := 0; round < wanted.rounds; round++ {
				request(client, url, random(wanted.size), two)
			}
		}()
	}
	all.Wait()
	transport.CloseIdleConnections()
	fail(server.Close())
}

func request(client *http.Client, url string, content []byte, two bool) {
	answer, err := client.Post(url, "application/octet-stream", bytes.NewReader(content))
	fail(err)
	defer answer.Body.Close()
	returned, err := ioutil.ReadAll(answer.Body)
	fail(err)
	if !bytes.Equal(returned, content) {
		fail(errors.New("the server answered something else"))
	}
	if (answer.Header.Get("X-Protocol") == "HTTP/2.0") != two {
		fail(errors.New("not the protocol that was wanted"))
	}
	digest := sha256.Sum256(content)
	report(map[string]interface{}{
		"event": "body", "bytes": len(content), "sha256": hex.EncodeToString(digest[:]),
	})
}
