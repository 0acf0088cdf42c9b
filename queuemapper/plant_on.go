//go:build skeinplant

package queuemapper

// plants are mistakes that the tests must catch: TestPlanted switches them on one by one.
var plants struct {
	noSource    bool // O13: publish does not compare the source log
	noTarget    bool // O13: publish does not compare the target log
	touchReads  bool // O18: an unknown move is settled by a read
	sameEpoch   bool // I5: a publication may use the group's epoch again
	settleReads bool // O8: an unknown swap of witnesses is settled by a read
	sealLast    bool // O19: sealing a log does not compare that another one is open
	loseOpened  bool // O1: giving a log up does not compare its record
	loseOthers  bool // I4: giving a log up marks what lies in others, too
	lostOpen    bool // I5: a log may be given up with groups open in it
	takeLost    bool // I10: a disk that the map does not know is registered anew
	lateNew     bool // I10: a new log's registration may land after it was given up
}

// Plant makes one of the mistakes, named as its field is, until the function that it returns is called: for internal/sim.
func Plant(name string) (undo func()) {
	p := map[string]*bool{
		"noSource":    &plants.noSource,
		"noTarget":    &plants.noTarget,
		"touchReads":  &plants.touchReads,
		"settleReads": &plants.settleReads,
		"sameEpoch":   &plants.sameEpoch,
		"sealLast":    &plants.sealLast,
		"loseOpened":  &plants.loseOpened,
		"loseOthers":  &plants.loseOthers,
		"lostOpen":    &plants.lostOpen,
		"takeLost":    &plants.takeLost,
		"lateNew":     &plants.lateNew,
	}[name]
	*p = true
	return func() { *p = false }
}
