/*
 * Telnet (RFC 854, 855, 856 binary, 857 echo, 858 suppress go-ahead): enough that a telnet client becomes a raw
 * terminal. We say what we do and refuse nothing aloud: answers to our own offers need no reply.
 */
#include "backend.h"

enum {
	IAC = 255,
	DONT = 254,
	DO = 253,
	WONT = 252,
	WILL = 251,
	SB = 250,
	BREAK = 243,
	SE = 240,
	OPT_BINARY = 0,
	OPT_ECHO = 1,
	OPT_SGA = 3
};
enum { DATA, GOT_IAC, GOT_OPTION_COMMAND, IN_SUBNEGOTIATION, SUBNEGOTIATION_IAC };

const uint8_t telnet_greeting[] = {
	IAC, WILL, OPT_ECHO, IAC, WILL, OPT_SGA, IAC, WILL, OPT_BINARY, IAC, DO, OPT_BINARY,
};
const size_t telnet_greeting_len = sizeof(telnet_greeting);

/* The byte after IAC. Returns true if it stands for itself. */
static bool command(struct telnet *t, uint8_t ch, bool *brk)
{
	t->state = DATA;
	switch (ch) {
	case IAC:
		return true;
	case BREAK:
		*brk = true;
		break;
	case WILL:
	case WONT:
	case DO:
	case DONT:
		t->state = GOT_OPTION_COMMAND;
		break;
	case SB:
		t->state = IN_SUBNEGOTIATION;
		break;
	default:
		break;
	}
	return false;
}

size_t telnet_filter(struct telnet *t, uint8_t *buf, size_t len, bool *brk)
{
	size_t out = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t ch = buf[i];

		switch (t->state) {
		case DATA:
			if (ch == IAC)
				t->state = GOT_IAC;
			else
				buf[out++] = ch;
			break;
		case GOT_IAC:
			if (command(t, ch, brk))
				buf[out++] = ch;
			break;
		case GOT_OPTION_COMMAND:
			t->state = DATA;
			break;
		case IN_SUBNEGOTIATION:
			if (ch == IAC)
				t->state = SUBNEGOTIATION_IAC;
			break;
		default:
			t->state = ch == SE ? DATA : IN_SUBNEGOTIATION;
			break;
		}
	}
	return out;
}
