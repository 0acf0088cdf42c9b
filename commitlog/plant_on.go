//go:build skeinplant

package commitlog

// plants are mistakes that the tests must catch: TestPlanted switches them on one by one.
var plants struct {
	writeErrors  bool // a failed write counts as durable
	noDsync      bool // writes are acked from the device's cache
	anyBlock     bool // what a torn tail left behind is taken for log
	ackEarly     bool // O4: a block is committed before the witnesses have it
	sortUnsynced bool // a sorted file gets its name before it is durable
	noCeiling    bool // ADR 10: an offset past the ceiling is given
}
