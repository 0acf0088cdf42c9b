//go:build !skeinplant

package failover

// plants are mistakes that the tests must catch; see plant_on.go.
var plants = struct{ cachedSet, emptyTable, anyEpoch, reuseEpoch, dropState, unnamed bool }{}
