//go:build !skeininvariants

package invariant

// Enabled is true in builds with the tag skeininvariants.
const Enabled = false
