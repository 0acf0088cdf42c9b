//go:build !skeinplant

package commitlog

// plants are mistakes that the tests must catch; see plant_on.go.
var plants = struct{ writeErrors, noDsync, anyBlock, noCeiling, ackEarly, sortUnsynced bool }{}
