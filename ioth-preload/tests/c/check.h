/* Checks that name the line. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                      \
	do {                                                                                  \
		if (!(condition)) {                                                           \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition,   \
				strerror(errno));                                             \
			exit(1);                                                              \
		}                                                                             \
	} while (0)

/* A call that succeeds leaves errno alone. */
#define OK(call)                          \
	({                                \
		errno = 4242;             \
		long result = (call);     \
		CHECK(result >= 0);       \
		CHECK(errno == 4242);     \
		result;                   \
	})

#define FAILS(wanted, call)               \
	do {                              \
		errno = 0;                \
		CHECK((call) == -1);      \
		CHECK(errno == (wanted)); \
	} while (0)

static inline struct sockaddr_in loopback(int port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return addr;
}

static inline int port_of(int fd)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);
	OK(getsockname(fd, (struct sockaddr *)&addr, &len));
	CHECK(len == sizeof(addr) && addr.sin_family == AF_INET);
	return ntohs(addr.sin_port);
}

static inline short polled(int fd, short events, int timeout)
{
	struct pollfd pollfd = {.fd = fd, .events = events};
	OK(poll(&pollfd, 1, timeout));
	return pollfd.revents;
}

struct test {
	const char *name;
	void (*run)(void);
};

/* Runs the test that the program is told to. */
static inline int run_test(const struct test *tests, const char *name)
{
	for (; tests->name; tests++) {
		if (name && strcmp(tests->name, name) == 0) {
			tests->run();
			return 0;
		}
	}
	fprintf(stderr, "no such test\n");
	return 2;
}
