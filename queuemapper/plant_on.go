//go:build skeinplant

package queuemapper

// plants are mistakes that the tests must catch: TestPlanted switches them on one by one.
var plants struct {
	noSource    bool // O13: publish does not compare the source log
	noTarget    bool // O13: publish does not compare the target log
	touchReads  bool // O18: an unknown move is settled by a read
	settleReads bool // O8: an unknown swap of witnesses is settled by a read
}
