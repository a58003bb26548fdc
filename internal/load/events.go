package load

// events finds the events in a text/event-stream (WHATWG HTML 9.2.6): lines of fields, where a blank line ends an event, which
// counts if it has data. It keeps only as much of an event as a timestamp needs.
type events struct {
	state   int
	cr      bool // the last byte was CR; a following LF belongs to it
	hasData bool
	field   [5]byte // start of the line
	length  int
	data    [32]byte // start of the event's data
	kept    int
}

const (
	inField = iota // before the colon
	afterColon
	inData
	inOther
)

// feed reads a piece of the stream and calls event with the start of each event's data.
func (e *events) feed(p []byte, event func(data []byte)) {
	for _, c := range p {
		if c == '\n' && e.cr {
			e.cr = false
			continue
		}
		e.cr = c == '\r'
		if c == '\n' || c == '\r' {
			e.endLine(event)
			continue
		}
		switch e.state {
		case inField:
			switch {
			case c == ':' && e.isData():
				e.state = afterColon
			case c == ':':
				e.state = inOther
			default:
				if e.length < len(e.field) {
					e.field[e.length] = c
				}
				e.length++
			}
		case afterColon:
			e.state = inData
			if c != ' ' {
				e.keep(c)
			}
		case inData:
			e.keep(c)
		}
	}
}

func (e *events) isData() bool { return e.length == 4 && string(e.field[:4]) == "data" }

func (e *events) keep(c byte) {
	// Only of the first line of data.
	if e.kept < len(e.data) && !e.hasData {
		e.data[e.kept] = c
		e.kept++
	}
}

func (e *events) endLine(event func(data []byte)) {
	blank := e.state == inField && e.length == 0
	switch {
	case blank && e.hasData:
		event(e.data[:e.kept])
		e.hasData, e.kept = false, 0
	case e.state == afterColon, e.state == inData, e.state == inField && e.isData():
		e.hasData = true
	}
	e.state, e.length = inField, 0
}
