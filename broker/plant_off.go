//go:build !skeinplant

package broker

// plants are mistakes that the tests must catch; see plant_on.go.
var plants = struct{ endOutOfRange, tellAlways bool }{}
