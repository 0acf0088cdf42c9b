//go:build !skeinplant

package queuemapper

// plants are mistakes that the tests must catch; see plant_on.go.
var plants = struct{ noSource, noTarget, touchReads, settleReads, sealLast, sameEpoch, loseOpened, loseOthers, lostOpen, takeLost, lateNew bool }{}
