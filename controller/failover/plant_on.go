//go:build skeinplant

package failover

// plants are mistakes that the tests must catch: TestPlanted switches them on one by one.
var plants struct {
	cachedSet  bool // O9: the members are those of the record as it was before the seal
	emptyTable bool // O6: a member that does not know counts as one that knows of nothing
	anyEpoch   bool // O13: the source is compared as it is at the publishing, not at the table's epoch
	reuseEpoch bool // I5: the next generation has the epoch of the one before
	dropState  bool // O12: the opening frame carries the ends alone
	unnamed    bool // O2: any opening frame of a generation's number is taken for the one that the record names
}

// Plant makes one of the mistakes, named as its field is, until the function that it returns is called: for internal/sim.
func Plant(name string) (undo func()) {
	p := map[string]*bool{
		"cachedSet":  &plants.cachedSet,
		"emptyTable": &plants.emptyTable,
		"anyEpoch":   &plants.anyEpoch,
		"reuseEpoch": &plants.reuseEpoch,
		"dropState":  &plants.dropState,
		"unnamed":    &plants.unnamed,
	}[name]
	*p = true
	return func() { *p = false }
}
