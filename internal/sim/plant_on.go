//go:build skeinplant

package sim

// planted are mistakes in what the simulation itself stands for: the log.
var planted struct {
	ackFirst  bool // O4: a block is committed before the witnesses have it
	unnamed   bool // O2: a generation is found by its number, not by its opening frame
	noCeiling bool // O22: an offset past the ceiling is given
}

// plant makes one of the mistakes until undo is called.
func plant(name string) (undo func()) {
	p := map[string]*bool{"ackFirst": &planted.ackFirst, "unnamed": &planted.unnamed, "noCeiling": &planted.noCeiling}[name]
	*p = true
	return func() { *p = false }
}
