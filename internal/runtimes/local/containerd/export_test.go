package containerd

// Parsers of text from the kernel and the host, which are tested separately.
var (
	KilledIn     = killedIn
	ParseCounter = parseCounter
	ReadRecord   = readRecord
	Listeners    = listeners
)

// FindCgroups returns where the controllers are mounted.
func FindCgroups(root, mountinfo string) (unified string, v1 map[string]string, err error) {
	g, err := findCgroups(root, mountinfo)
	return g.unified, g.v1, err
}
