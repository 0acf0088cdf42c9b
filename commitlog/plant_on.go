//go:build skeinplant

package commitlog

// plants are mistakes that the tests must catch: TestPlanted switches them on one by one.
var plants struct {
	noCeiling bool // ADR 10: an offset past the ceiling is given
}
