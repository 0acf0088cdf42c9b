//go:build !skeinplant

package witness

// plants are mistakes that the tests must catch; see plant_on.go.
var plants = struct {
	ackEarly, gapAccepted, emptyAnswer, joinerNotAwaited, settleByRead, afterSeal, replacedNotAwaited bool
}{}
