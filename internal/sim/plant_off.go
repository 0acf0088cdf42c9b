//go:build !skeinplant

package sim

// planted are mistakes that the tests must catch; see plant_on.go.
var planted = struct{ ackFirst, unnamed, noCeiling, noFence, ownMember bool }{}
