//go:build skeinnext

package queuemapper

import (
	"bytes"
	"slices"
)

// ahead is how many feature levels more a build knows than this code has. With the tag it is one, as in a later version of this
// program: at that level it writes brokers, topics and groups into the map in a form that builds without the tag refuse. (Not logs:
// logGuard compares their version.)
const ahead = 1

// unasked is a mistake that TestRollingUpgradePlanted links in: the form is written whatever the cluster's level is. Any text: on.
var unasked string

// nextField is what the form has more, behind everything else. Its version is one more, too.
const nextField = 42

// withNext gives a value the form that the cluster's level has it written in.
func (s *Store) withNext(value []byte) []byte {
	if !slices.Contains([]byte{kindBroker, kindTopic, kindGroup}, value[0]) || s.Map().Level() < newest && unasked == "" {
		return value
	}
	body := slices.Clone(value[:len(value)-crcSize])
	body[1]++
	return finish(append(body, nextField))
}

// withoutNext gives a value the form that the rest of this package reads.
func withoutNext(value []byte) []byte {
	if !isNext(value) {
		return value
	}
	body := slices.Clone(value[:len(value)-crcSize-1])
	body[1]--
	return finish(body)
}

// isNext: one that is damaged is not.
func isNext(value []byte) bool {
	end := len(value) - crcSize
	return end > headerSize && value[1] == versionOf(value[0])+1 && value[end-1] == nextField && bytes.Equal(finish(slices.Clone(value[:end])), value)
}

// shownNext shows in a dump which values have the form.
func shownNext(shown any, value []byte) any {
	if !isNext(value) {
		return shown
	}
	return map[string]any{"nextField": nextField, "of": shown}
}
