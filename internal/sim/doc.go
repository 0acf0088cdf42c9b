// Package sim is a seeded simulation of a Skein cluster: the real code of the map's store, of witnesses, of failover and of what a
// host does with its logs, as coroutines on virtual time, with a network, disks and an etcd of its own.
//
// It promises that a seed always gives the same run: no clock, no real concurrency, no order of Go's maps. After every event
// it checks what DESIGN section 10 says must always be true. It is test code and nothing imports it.
package sim
