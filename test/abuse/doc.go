// Package abuse is what hostile and broken clients do to a broker: raw connections with requests made by hand, and an
// honest client beside them that notices how it is served. The tests beside it run it against the real binary.
package abuse
