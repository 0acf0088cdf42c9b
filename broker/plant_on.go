//go:build skeinplant

package broker

// plants are mistakes that TestPlanted switches on one by one.
var plants struct {
	endOutOfRange bool // a host says OFFSET_OUT_OF_RANGE where its run ends
	tellAlways    bool // an owner redirects a client that came back
}
