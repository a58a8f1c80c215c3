// SPDX-License-Identifier: Apache-2.0

// Opens a plugin, named by the first word, and lets it play. It has no TLS of its own.
package main

import (
	"os"
	"plugin"
)

func main() {
	opened, err := plugin.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	play, err := opened.Lookup("Play")
	if err != nil {
		panic(err)
	}
	os.Exit(play.(func([]string) int)(os.Args[2:]))
}
