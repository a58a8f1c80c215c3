// SPDX-License-Identifier: Apache-2.0

// The main function of a program that is linked with C.
package main

/*
#include <stdlib.h>
static int same(int value) { return abs(value); }
*/
import "C"

import "os"

func main() { os.Exit(int(C.same(C.int(play(os.Args[1:]))))) }
