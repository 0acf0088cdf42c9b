//go:build !skeinnext

package queuemapper

// ahead is how many feature levels more a build knows than this code has; see next_on.go.
const ahead = 0

// The three are where a form that the next level brings comes into the map and out of it: without the tag there is none.

func (s *Store) withNext(value []byte) []byte { return value }

func withoutNext(value []byte) []byte { return value }

func shownNext(shown any, _ []byte) any { return shown }
