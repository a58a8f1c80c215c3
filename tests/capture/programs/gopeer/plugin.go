// SPDX-License-Identifier: Apache-2.0

// The door of a plugin.
package main

// Play is what the host of the plugin calls.
func Play(words []string) int { return play(words) }
