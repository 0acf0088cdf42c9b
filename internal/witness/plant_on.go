//go:build skeinplant

package witness

// plants are mistakes that the tests must catch: TestPlanted switches them on one by one.
var plants struct {
	ackEarly           bool // O4: one member is enough for a commit
	gapAccepted        bool // O5: a delta whose number does not follow is recorded
	emptyAnswer        bool // O6: a restarted witness answers with an empty table
	joinerNotAwaited   bool // O7: between the start of a swap and its end the old set is enough
	settleByRead       bool // O8: an unknown swap counts as lost, because the record reads so
	afterSeal          bool // O10: a sealed table takes updates
	replacedNotAwaited bool // O7: a member is not needed any more as soon as the one that takes its place has the table
}

// Plant makes one of the mistakes, named as its field is, until the function that it returns is called: for internal/sim.
func Plant(name string) (undo func()) {
	p := map[string]*bool{
		"ackEarly":           &plants.ackEarly,
		"gapAccepted":        &plants.gapAccepted,
		"emptyAnswer":        &plants.emptyAnswer,
		"joinerNotAwaited":   &plants.joinerNotAwaited,
		"settleByRead":       &plants.settleByRead,
		"afterSeal":          &plants.afterSeal,
		"replacedNotAwaited": &plants.replacedNotAwaited,
	}[name]
	*p = true
	return func() { *p = false }
}
