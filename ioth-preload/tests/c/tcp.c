/* Streams. */
#include "check.h"

static int listener(void)
{
	int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in addr = loopback(0);
	OK(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	OK(listen(fd, 16));
	return fd;
}

static int client(int port)
{
	int fd = OK(socket(AF_INET, SOCK_STREAM, IPPROTO_TCP));
	struct sockaddr_in addr = loopback(port);
	OK(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return fd;
}

static void talk(void)
{
	int server = listener(), port = port_of(server);
	int a = client(port);
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	memset(&peer, 0xff, sizeof(peer));
	int b = OK(accept(server, (struct sockaddr *)&peer, &len));
	CHECK(len == sizeof(struct sockaddr_in));
	CHECK(((struct sockaddr_in *)&peer)->sin_port == htons(port_of(a)));
	CHECK((fcntl(b, F_GETFD) & FD_CLOEXEC) == 0 && (fcntl(b, F_GETFL) & O_NONBLOCK) == 0);

	/* Too little room for the name. */
	struct sockaddr_in name;
	memset(&name, 0xff, sizeof(name));
	len = 4;
	OK(getpeername(a, (struct sockaddr *)&name, &len));
	CHECK(len == sizeof(name) && name.sin_family == AF_INET && ntohs(name.sin_port) == port);
	CHECK(name.sin_addr.s_addr == 0xffffffff);
	len = -1;
	FAILS(EINVAL, getpeername(a, (struct sockaddr *)&name, &len));

	char text[64];
	CHECK(OK(write(a, "one", 3)) == 3);
	CHECK(OK(read(b, text, sizeof(text))) == 3 && memcmp(text, "one", 3) == 0);
	CHECK(OK(send(b, "three", 5, MSG_MORE)) == 5);
	len = sizeof(peer);
	CHECK(OK(recvfrom(a, text, sizeof(text), 0, (struct sockaddr *)&peer, &len)) == 5 && len == 0);
	struct sockaddr_in addr = loopback(1);
	CHECK(OK(sendto(b, "to", 2, 0, (struct sockaddr *)&addr, sizeof(addr))) == 2);
	CHECK(OK(recv(a, text, 1, MSG_PEEK)) == 1 && text[0] == 't');
	CHECK(OK(recv(a, text, 2, MSG_WAITALL)) == 2);

	struct iovec parts[12];
	for (int i = 0; i < 12; i++)
		parts[i] = (struct iovec){"ab", 2};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 12};
	CHECK(OK(sendmsg(a, &message, 0)) == 24);
	char control[64], name_room[64];
	struct iovec part = {text, sizeof(text)};
	message = (struct msghdr){.msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_name = name_room,
				  .msg_namelen = sizeof(name_room),
				  .msg_control = control,
				  .msg_controllen = sizeof(control)};
	CHECK(OK(recvmsg(b, &message, 0)) == 24);
	CHECK(message.msg_namelen == 0 && message.msg_controllen == 0 && message.msg_flags == 0);
	CHECK(memcmp(text, "abababab", 8) == 0);

	/* tcp(7): thrown away, not copied. */
	CHECK(OK(send(a, "0123456789", 10, 0)) == 10);
	CHECK(polled(b, POLLIN, -1) == POLLIN);
	CHECK(OK(recv(b, NULL, 4, MSG_TRUNC)) == 4);
	CHECK(OK(recv(b, text, sizeof(text), 0)) == 6 && memcmp(text, "456789", 6) == 0);
	FAILS(EINVAL, recv(b, text, 1, MSG_OOB));
	FAILS(EAGAIN, recv(b, text, 1, MSG_ERRQUEUE));
	FAILS(EAGAIN, recv(b, text, 1, MSG_DONTWAIT));

	OK(shutdown(a, SHUT_WR));
	CHECK(OK(recv(b, text, sizeof(text), 0)) == 0);
	signal(SIGPIPE, SIG_IGN);
	FAILS(EPIPE, send(a, "x", 1, 0));
	CHECK(OK(send(b, "back", 4, 0)) == 4);
	CHECK(OK(recv(a, text, sizeof(text), 0)) == 4);
	OK(close(b));
	CHECK(OK(recv(a, text, sizeof(text), 0)) == 0);
	OK(close(a));
	OK(close(server));
}

static void nonblocking(void)
{
	/* The lowest number that is free, as daemons expect. */
	OK(close(0));
	CHECK(OK(socket(AF_INET, SOCK_STREAM, 0)) == 0);
	int server = listener(), port = port_of(server);
	OK(fcntl(server, F_SETFL, O_NONBLOCK));
	FAILS(EAGAIN, accept(server, NULL, NULL));
	FAILS(EINVAL, accept4(server, NULL, NULL, 1));
	CHECK(polled(server, POLLIN, 0) == 0);

	int a = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	CHECK(fcntl(a, F_GETFL) & O_NONBLOCK && fcntl(a, F_GETFD) & FD_CLOEXEC);
	struct sockaddr_in addr = loopback(port);
	errno = 0;
	CHECK(connect(a, (struct sockaddr *)&addr, sizeof(addr)) == -1 && errno == EINPROGRESS);
	CHECK(polled(a, POLLOUT, -1) == POLLOUT);
	int error = -1;
	socklen_t len = sizeof(error);
	OK(getsockopt(a, SOL_SOCKET, SO_ERROR, &error, &len));
	CHECK(error == 0);
	CHECK(polled(server, POLLIN, -1) == POLLIN);
	int b = OK(accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
	CHECK(fcntl(b, F_GETFL) & O_NONBLOCK && fcntl(b, F_GETFD) & FD_CLOEXEC);
	char text[8];
	FAILS(EAGAIN, recv(b, text, sizeof(text), 0));
	CHECK(OK(send(a, "hello", 5, 0)) == 5);
	CHECK(polled(b, POLLIN, -1) == POLLIN);
	CHECK(OK(recv(b, text, sizeof(text), 0)) == 5);

	/* A time-out of accept(2). */
	OK(fcntl(server, F_SETFL, 0));
	struct timeval time = {.tv_usec = 20000};
	OK(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)));
	FAILS(EAGAIN, accept(server, NULL, NULL));
	memset(&time, 0, sizeof(time));
	len = sizeof(time);
	OK(getsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &time, &len));
	CHECK(len == sizeof(time) && time.tv_usec == 20000);
}

static volatile sig_atomic_t piped;

static void on_pipe(int signal)
{
	piped += signal == SIGPIPE;
}

static void refused(void)
{
	/* A port that is taken, by nobody who listens. */
	int taken = OK(socket(AF_INET, SOCK_STREAM, 0));
	struct sockaddr_in addr = loopback(0);
	OK(bind(taken, (struct sockaddr *)&addr, sizeof(addr)));
	int port = port_of(taken);
	addr = loopback(port);
	int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
	FAILS(ECONNREFUSED, connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	/* It can be used again. */
	int server = listener();
	addr = loopback(port_of(server));
	OK(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));

	int late = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	addr = loopback(port);
	errno = 0;
	CHECK(connect(late, (struct sockaddr *)&addr, sizeof(addr)) == -1);
	CHECK(errno == EINPROGRESS);
	CHECK(polled(late, POLLOUT, -1) & POLLOUT);
	signal(SIGPIPE, on_pipe);
	FAILS(ECONNREFUSED, send(late, "x", 1, 0));
	CHECK(piped == 0);
	FAILS(EPIPE, send(late, "x", 1, 0));
	CHECK(piped == 1);
	FAILS(EPIPE, send(late, "x", 1, MSG_NOSIGNAL));
	CHECK(piped == 1);
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* To a port of the node from which no answer comes. */
static void impatient(void)
{
	struct sockaddr_in addr = loopback(9);
	int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
	struct timeval time = {.tv_usec = 50000};
	OK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)));
	FAILS(EINPROGRESS, connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	FAILS(EAGAIN, send(fd, "x", 1, 0));
	char byte;
	FAILS(EAGAIN, recv(fd, &byte, 1, MSG_DONTWAIT));

	fd = OK(socket(AF_INET, SOCK_STREAM, 0));
	struct sigaction action = {.sa_handler = on_alarm};
	OK(sigaction(SIGALRM, &action, NULL));
	struct itimerval alarm = {.it_value.tv_usec = 50000, .it_interval.tv_usec = 50000};
	OK(setitimer(ITIMER_REAL, &alarm, NULL));
	FAILS(EINTR, connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
}

static void states(void)
{
	int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
	char byte;
	FAILS(ENOTCONN, recv(fd, &byte, 1, 0));
	FAILS(EPIPE, send(fd, "x", 1, MSG_NOSIGNAL));
	FAILS(EINVAL, accept(fd, NULL, NULL));
	FAILS(ENOTCONN, shutdown(fd, SHUT_RDWR));
	struct sockaddr_in name;
	socklen_t len = sizeof(name);
	FAILS(ENOTCONN, getpeername(fd, (struct sockaddr *)&name, &len));
	int server = listener();
	FAILS(ENOTCONN, recv(server, &byte, 1, 0));
	FAILS(EPIPE, send(server, "x", 1, MSG_NOSIGNAL));
	int datagram = OK(socket(AF_INET, SOCK_DGRAM, 0));
	FAILS(EOPNOTSUPP, accept(datagram, NULL, NULL));
	FAILS(ENOTSOCK, accept(0, NULL, NULL));
	FAILS(EBADF, accept(-1, NULL, NULL));
	FAILS(EINVAL, socket(AF_INET, SOCK_STREAM | 0x100000, 0));
	FAILS(EPROTONOSUPPORT, socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));

	/* Sockets of other families are not the node's. */
	int pair[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	CHECK(OK(send(pair[0], "x", 1, 0)) == 1);
	struct sockaddr_un unix_name;
	len = sizeof(unix_name);
	CHECK(OK(recvfrom(pair[1], &byte, 1, 0, (struct sockaddr *)&unix_name, &len)) == 1);
	int local = OK(socket(AF_UNIX, SOCK_STREAM, 0));
	int value = 0;
	len = sizeof(value);
	OK(getsockopt(local, SOL_SOCKET, SO_DOMAIN, &value, &len));
	CHECK(value == AF_UNIX);
}

static void options(void)
{
	int fd = OK(socket(AF_INET, SOCK_STREAM, 0));
	const int known[][2] = {{SO_TYPE, SOCK_STREAM}, {SO_DOMAIN, AF_INET}, {SO_PROTOCOL, IPPROTO_TCP}};
	for (int i = 0; i < 3; i++) {
		int value = -1;
		socklen_t len = sizeof(value);
		OK(getsockopt(fd, SOL_SOCKET, known[i][0], &value, &len));
		CHECK(value == known[i][1] && len == sizeof(value));
		long room = -1;
		len = sizeof(room);
		OK(getsockopt(fd, SOL_SOCKET, known[i][0], &room, &len));
		CHECK(len == sizeof(int));
		len = 1;
		OK(getsockopt(fd, SOL_SOCKET, known[i][0], &room, &len));
		CHECK(len == 1);
		len = -1;
		FAILS(EINVAL, getsockopt(fd, SOL_SOCKET, known[i][0], &room, &len));
	}
	int value = 1;
	socklen_t len = sizeof(value);
	OK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)));
	value = -1;
	OK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len));
	CHECK(value == 1 && len == sizeof(value));
	FAILS(EINVAL, setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, 1));
	FAILS(ENOPROTOOPT, setsockopt(fd, SOL_SOCKET, 9999, &value, sizeof(value)));
	/* What the pair means by it stays hidden. */
	value = 6;
	OK(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &value, sizeof(value)));
	char byte;
	FAILS(ENOTCONN, recv(fd, &byte, 1, 0));
	if (getenv("IOTH_NODE")) {
		value = 1;
		FAILS(ENOPROTOOPT, setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &value, sizeof(value)));
		FAILS(ENOPROTOOPT, setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3));
	}
}

/* A server that hands its connection on as servers do: by fork, dup2 and exec. */
static void fork_and_exec(void)
{
	int server = listener(), port = port_of(server);
	pid_t pid = OK(fork());
	if (pid == 0) {
		int fd = OK(accept(server, NULL, NULL));
		OK(dup2(fd, 5));
		OK(fcntl(5, F_SETFD, 0));
		OK(execl("/proc/self/exe", "tcp", "executed", NULL));
	}
	OK(close(server));
	int fd = client(port);
	char text[16];
	CHECK(OK(read(fd, text, sizeof(text))) == 5 && memcmp(text, "hello", 5) == 0);
	CHECK(OK(send(fd, "thanks", 6, 0)) == 6);
	CHECK(OK(recv(fd, text, sizeof(text), 0)) == 0);
	int status;
	CHECK(OK(waitpid(pid, &status, 0)) == pid && status == 0);
}

static void executed(void)
{
	struct sockaddr_in name;
	socklen_t len = sizeof(name);
	OK(getpeername(5, (struct sockaddr *)&name, &len));
	CHECK(name.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	FILE *stream = fdopen(5, "r+");
	CHECK(stream && fputs("hello", stream) >= 0 && fflush(stream) == 0);
	char text[16];
	CHECK(OK(recv(5, text, sizeof(text), 0)) == 6);
}

/* Each connection is one worker's, and none is lost. */
static void workers(void)
{
	enum { WORKERS = 3, CONNECTIONS = 60 };
	int server = listener(), port = port_of(server);
	pid_t pids[WORKERS];
	for (int i = 0; i < WORKERS; i++) {
		pids[i] = OK(fork());
		if (pids[i] == 0) {
			for (char byte = 0; byte != 'q';) {
				int fd = OK(accept(server, NULL, NULL));
				CHECK(OK(recv(fd, &byte, 1, 0)) == 1);
				CHECK(OK(send(fd, &byte, 1, 0)) == 1);
				OK(close(fd));
			}
			_exit(0);
		}
	}
	for (int i = 0; i < CONNECTIONS + WORKERS; i++) {
		int fd = client(port);
		char byte = i < CONNECTIONS ? 'x' : 'q', back = 0;
		CHECK(OK(send(fd, &byte, 1, 0)) == 1);
		CHECK(OK(recv(fd, &back, 1, 0)) == 1 && back == byte);
		OK(close(fd));
	}
	for (int i = 0; i < WORKERS; i++) {
		int status;
		CHECK(OK(waitpid(pids[i], &status, 0)) == pids[i] && status == 0);
	}
}

static void *ask_often(void *fd)
{
	for (int i = 0; i < 200; i++) {
		int value = 0;
		socklen_t len = sizeof(value);
		OK(getsockopt((int)(long)fd, IPPROTO_TCP, TCP_NODELAY, &value, &len));
		port_of((int)(long)fd);
		int other = OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
		OK(close(other));
	}
	return NULL;
}

/* Calls that do not wait are not interrupted, and a handler may make them as well. */
static int handled;

static void handle(int signal)
{
	(void)signal;
	int value, before = errno;
	socklen_t len = sizeof(value);
	CHECK(getsockopt(handled, SOL_SOCKET, SO_KEEPALIVE, &value, &len) == 0 && value == 1);
	errno = before;
}

static void signals(void)
{
	int fd = handled = listener(), one = 1;
	OK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)));
	struct sigaction action = {.sa_handler = handle};
	OK(sigaction(SIGALRM, &action, NULL));
	struct itimerval alarm = {.it_value.tv_usec = 1000, .it_interval.tv_usec = 1000};
	OK(setitimer(ITIMER_REAL, &alarm, NULL));
	pthread_t threads[3];
	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, ask_often, (void *)(long)fd) == 0);
	ask_often((void *)(long)fd);
	for (int i = 0; i < 3; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
}

static void *connect_later(void *port)
{
	usleep(20000);
	return (void *)(long)client((int)(long)port);
}

static void descriptors(void)
{
	int server = listener(), port = port_of(server);
	int a = client(port);
	struct rlimit limit = {.rlim_cur = 32, .rlim_max = 64};
	OK(setrlimit(RLIMIT_NOFILE, &limit));
	int last = -1;
	for (int fd; (fd = dup(0)) >= 0; last = fd) {
	}
	FAILS(EMFILE, accept(server, NULL, NULL));
	FAILS(EMFILE, socket(AF_INET, SOCK_STREAM, 0));
	OK(close(last));
	/* The connection was not lost. */
	int b = OK(accept(server, NULL, NULL));
	CHECK(OK(send(a, "x", 1, 0)) == 1);
	char byte;
	CHECK(OK(recv(b, &byte, 1, 0)) == 1);

	/* While it waits, the descriptor is kept. */
	limit.rlim_cur = 40;
	OK(setrlimit(RLIMIT_NOFILE, &limit));
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, connect_later, (void *)(long)port) == 0);
	OK(accept(server, NULL, NULL));
	void *result;
	CHECK(pthread_join(thread, &result) == 0);
}

static void pointers(void)
{
	int server = listener(), port = port_of(server);
	int fd = client(port);
	void *bad[] = {NULL, (void *)1, (void *)-1, (void *)0x10000};
	for (int i = 0; i < 4; i++) {
		struct sockaddr_in name;
		socklen_t len = sizeof(name);
		int value = 1;
		FAILS(EFAULT, getsockname(fd, bad[i], &len));
		FAILS(EFAULT, getsockname(fd, (struct sockaddr *)&name, bad[i]));
		FAILS(EFAULT, getsockopt(fd, SOL_SOCKET, SO_TYPE, bad[i], &len));
		len = sizeof(value);
		FAILS(EFAULT, getsockopt(fd, SOL_SOCKET, SO_RCVBUF, bad[i], &len));
		FAILS(EFAULT, getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, bad[i]));
		FAILS(EFAULT, setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, bad[i], sizeof(int)));
		FAILS(EFAULT, bind(fd, bad[i], sizeof(name)));
		FAILS(EFAULT, connect(fd, bad[i], sizeof(name)));
		FAILS(EFAULT, sendmsg(fd, bad[i], 0));
		FAILS(EFAULT, recvmsg(fd, bad[i], 0));
		FAILS(EFAULT, send(fd, bad[i], 10, 0));
		FAILS(EFAULT, ioctl(fd, FIONREAD, bad[i]));
		int datagram = OK(socket(AF_INET, SOCK_DGRAM, 0));
		FAILS(EFAULT, sendto(datagram, "x", 1, 0, bad[i] ? bad[i] : (void *)2, sizeof(name)));
		OK(close(datagram));
	}
	FAILS(EINVAL, bind(fd, (struct sockaddr *)bad, -1));
	FAILS(EINVAL, connect(fd, (struct sockaddr *)bad, 1000));
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"talk", talk},
		{"nonblocking", nonblocking},
		{"refused", refused},
		{"impatient", impatient},
		{"states", states},
		{"options", options},
		{"fork", fork_and_exec},
		{"executed", executed},
		{"workers", workers},
		{"signals", signals},
		{"descriptors", descriptors},
		{"pointers", pointers},
		{NULL, NULL},
	};
	return run_test(tests, argc > 1 ? argv[1] : NULL);
}
