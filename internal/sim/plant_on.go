//go:build skeinplant

package sim

// planted are mistakes in what the simulation itself stands for: the log.
var planted struct {
	ackFirst bool // O4: a block is committed before the witnesses have it
}
