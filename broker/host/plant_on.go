//go:build skeinplant

package host

// plants are mistakes that the tests must catch; the simulation switches them on one by one.
var plants struct {
	serveFirst   bool // O15: a log serves what its disk says, without asking its record
	mapFirst     bool // O15: the map is read before the reopening
	thawAnyway   bool // O18: a group whose move was not applied goes on without a look at the map
	lossUnmarked bool // I4: what the disk has lost is not marked in the map
	diskEnds     bool // O16: a sealed run keeps what the disk has beyond its end
	gapSome      bool // I6: partitions that have no end in the map as yet are left out when a group is sealed at its ceiling
	oldWord      bool // O22: the word that a log is lost is taken for one about whoever has reopened it since
	startBehind  bool // I4: the next generation's log start is behind what lies in a log that is about to be given up
	lostOpen     bool // I5: a log is given up, and its groups stay open in it
}

// Plant makes one of the mistakes, named as its field is, until the function that it returns is called: for internal/sim.
func Plant(name string) (undo func()) {
	p := map[string]*bool{
		"serveFirst":   &plants.serveFirst,
		"mapFirst":     &plants.mapFirst,
		"lossUnmarked": &plants.lossUnmarked,
		"diskEnds":     &plants.diskEnds,
		"thawAnyway":   &plants.thawAnyway,
		"gapSome":      &plants.gapSome,
		"oldWord":      &plants.oldWord,
		"startBehind":  &plants.startBehind,
		"lostOpen":     &plants.lostOpen,
	}[name]
	*p = true
	return func() { *p = false }
}
