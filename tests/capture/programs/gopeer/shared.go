// SPDX-License-Identifier: Apache-2.0

// The door of a shared library: Play takes the words of the command line, joined by spaces.
package main

import "C"

import "strings"

//export Play
func Play(words *C.char) C.int { return C.int(play(strings.Fields(C.GoString(words)))) }

func main() {}
