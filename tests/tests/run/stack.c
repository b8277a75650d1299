/* Programs that link the library, on a node with a process of its own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <ioth.h>
#include <iothconf.h>

static int checked(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static struct sockaddr_in place(const char *ip, const char *port) {
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, ip, &addr.sin_addr);
    return addr;
}

static struct ioth *node(const char *config) {
    struct ioth *stack = ioth_newstackc(config);
    checked(stack == NULL ? -1 : 0, "ioth_newstackc");
    return stack;
}

static int stream(struct ioth *stack) {
    return checked(ioth_msocket(stack, AF_INET, SOCK_STREAM, 0), "ioth_msocket");
}

/* serve CONFIG PORT: a daemon, whose first process ends before anybody comes, sends back what it gets. */
static int serve(const char *config, const char *port) {
    struct ioth *stack = node(config);
    int listener = stream(stack), connection;
    struct sockaddr_in addr = place("0.0.0.0", port);
    char buffer[4096];
    ssize_t len;
    checked(ioth_bind(listener, (void *) &addr, sizeof(addr)), "ioth_bind");
    checked(ioth_listen(listener, 5), "ioth_listen");
    if (checked(fork(), "fork") != 0)
        return 0;
    setsid();
    /* A socket that the child makes is as good. */
    close(stream(stack));
    while ((connection = ioth_accept(listener, NULL, NULL)) >= 0) {
        while ((len = read(connection, buffer, sizeof(buffer))) > 0)
            checked(write(connection, buffer, len) == len ? 0 : -1, "write");
        ioth_close(connection);
    }
    perror("ioth_accept");
    return 1;
}

/* execute CONFIG IP PORT: a shell, which knows nothing of nodes, speaks over a connection that it inherits. */
static int execute(const char *config, const char *ip, const char *port) {
    int fd = stream(node(config));
    struct sockaddr_in addr = place(ip, port);
    checked(ioth_connect(fd, (void *) &addr, sizeof(addr)), "ioth_connect");
    checked(dup2(fd, 9), "dup2");
    execl("/bin/sh", "sh", "-c", "echo from a shell >&9; head -n 1 <&9", NULL);
    return 1;
}

int main(int argc, char *argv[]) {
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], argv[3]);
    if (argc == 5 && strcmp(argv[1], "execute") == 0)
        return execute(argv[2], argv[3], argv[4]);
    return 2;
}
