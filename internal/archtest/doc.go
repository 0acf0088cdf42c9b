// Package archtest holds only tests: they keep the shape of the tree.
package archtest
