//go:build skeinplant

package sim

// planted are mistakes in what the simulation itself stands for: the log, and a broker's way to the map.
var planted struct {
	ackFirst  bool // O4: a block is committed before the witnesses have it
	unnamed   bool // O2: a generation is found by its number, not by its opening frame
	noCeiling bool // O22: an offset past the ceiling is given
	noFence   bool // O22: an operator gives a log up whose owner still runs, and can acknowledge
	ownMember bool // I14: the map is reached through the broker's own etcd member alone, which its leader may not reach
}

// plant makes one of the mistakes until undo is called.
func plant(name string) (undo func()) {
	p := map[string]*bool{"ackFirst": &planted.ackFirst, "unnamed": &planted.unnamed, "noCeiling": &planted.noCeiling, "noFence": &planted.noFence, "ownMember": &planted.ownMember}[name]
	*p = true
	return func() { *p = false }
}
