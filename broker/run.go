package broker

import "context"

// Run takes the broker's logs into service (O15), registers it, serves until ctx ends, then drains: stops
// taking connections and requests, lets what is in flight commit, and returns.
func (b *Broker) Run(ctx context.Context) error { return b.followMap(ctx) }
