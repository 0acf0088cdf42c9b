//go:build !skeinplant

package host

// plants are mistakes that the tests must catch; see plant_on.go.
var plants = struct{ serveFirst, mapFirst, diskEnds, thawAnyway, lossUnmarked, gapSome, oldWord, startBehind, lostOpen bool }{}
