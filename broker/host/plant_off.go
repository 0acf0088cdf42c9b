//go:build !skeinplant

package host

// plants are mistakes that the tests must catch; see plant_on.go.
var plants = struct{ serveFirst, mapFirst, diskEnds, thawAnyway, lossUnmarked bool }{}
