/* The hooks at which the backward of modules begins: does what NodeHooks of node_hooks.py does.
 *
 * All nodes have one hook, in one dict, and the hook finds the owner by the number of the node that runs.  With a hook
 * for each module, a step touches several objects of every module, which have left the caches since the step before.
 */
#include "_timestamps.h"

#include <string.h>

/* The same value as in distprof.flops.long_graphs. */
#define FREED_BY_RECURSION 2000
/* Nodes of earlier steps that are remembered: a graph may outlive its step. */
#define REMEMBERED (1 << 14)

#define ARGUMENTS(X) \
    X(timestamps) \
    X(now) \
    X(owners) \
    X(in_backward)  /* list, empty outside of backward: a graph may outlive the window */ \
    X(failed)       /* function that reports an exception, which would otherwise reach the user's backward */ \
    X(current_node) /* function that returns the node that runs */ \
    X(new_carrier)  /* function of a hook: returns a tensor that has it */ \
    X(keep_edges)   /* function of a node, for those of long graphs */ \
    X(nobody)       /* the owner of time outside of modules */

#define FIELDS(X) \
    ARGUMENTS(X) \
    X(carrier) /* the tensor with the hook, once there is one */

/* A node with the hook. */
typedef struct {
    int64_t number;
    PyObject *owner; /* borrowed: `nobody`, or one of `backward_owners` */
} Node;

typedef struct {
    PyObject_HEAD
    FIELDS(DECLARE_FIELD)
    PyObject **backward_owners;  /* by row: ~row, or NULL */
    Py_ssize_t rows;             /* the length of backward_owners */
    Node *nodes;                 /* of earlier steps, and from `first` on those of this step, in ascending order */
    Py_ssize_t size, capacity, first;
    Py_ssize_t last_found;       /* a place in `nodes`: the next node that runs is often the one before */
} NodeHooks;

COLLECTED(NodeHooks, hooks, FIELDS)

static PyTypeObject *hooks_type;
static PyObject *s_sequence_nr, *s_register;

int is_node_hooks(PyObject *object)
{
    return Py_TYPE(object) == hooks_type;
}

/* Returns a borrowed reference to the owner of the row's time in backward. */
static PyObject *owner_of(NodeHooks *self, PyObject *row)
{
    long long number = PyLong_AsLongLong(row);
    if (PyErr_Occurred())
        return NULL;
    if (PyObject_RichCompareBool(row, self->nobody, Py_EQ) == 1)
        return self->nobody;
    if (number < 0 || number >= 1 << 30) {
        PyErr_SetString(PyExc_ValueError, "no such row");
        return NULL;
    }
    if (number >= self->rows) {
        Py_ssize_t rows = 2 * number + 64;
        PyObject **grown = PyMem_Realloc(self->backward_owners, rows * sizeof *grown);
        if (grown == NULL)
            return PyErr_NoMemory();
        memset(grown + self->rows, 0, (rows - self->rows) * sizeof *grown);
        self->backward_owners = grown;
        self->rows = rows;
    }
    if (self->backward_owners[number] == NULL)
        self->backward_owners[number] = PyLong_FromLongLong(~number);
    return self->backward_owners[number];
}

/* Returns the place of the first node of this step whose number is not below `number`. */
static Py_ssize_t place_of(NodeHooks *self, int64_t number)
{
    Py_ssize_t low = self->first, high = self->size;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (self->nodes[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int is_highest(PyObject *object, int64_t number)
{
    NodeHooks *self = (NodeHooks *)object;
    int64_t highest = self->size > self->first ? self->nodes[self->size - 1].number : -1;
    return number > highest ? 1 : number == highest ? 0 : -1;
}

/* Inserts the node at a place of this step's. */
static int insert(NodeHooks *self, Py_ssize_t place, int64_t number, PyObject *owner)
{
    Node *room = self->size < self->capacity ? self->nodes : more_room(self->nodes, &self->capacity, sizeof *room);
    if (room == NULL)
        return -1;
    self->nodes = room;
    memmove(self->nodes + place + 1, self->nodes + place, (self->size - place) * sizeof *self->nodes);
    self->nodes[place] = (Node){number, owner};
    self->size++;
    return 0;
}

static int register_on(NodeHooks *self, PyObject *node)
{
    if (self->size - self->first >= FREED_BY_RECURSION) {
        PyObject *done = PyObject_CallFunctionObjArgs(self->keep_edges, node, NULL);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    if (self->carrier == NULL &&
        (self->carrier = PyObject_CallFunctionObjArgs(self->new_carrier, (PyObject *)self, NULL)) == NULL)
        return -1;
    PyObject *done = PyObject_CallMethodObjArgs(node, s_register, self->carrier, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int add_node(PyObject *object, PyObject *node, int64_t number, PyObject *row)
{
    NodeHooks *self = (NodeHooks *)object;
    Py_ssize_t place = is_highest(object, number) > 0 ? self->size : place_of(self, number);
    if (place < self->size && self->nodes[place].number == number)
        return 0;
    PyObject *owner = owner_of(self, row);
    return owner == NULL || insert(self, place, number, owner) < 0 ? -1 : register_on(self, node);
}

/* Calls the method of a node that returns its number.  Returns -1 with an exception set. */
int64_t number_of(PyObject *node)
{
    PyObject *number = PyObject_CallMethodObjArgs(node, s_sequence_nr, NULL);
    int64_t found = number == NULL ? -1 : PyLong_AsLongLong(number);
    Py_XDECREF(number);
    return found;
}

/* Returns the owner that begins at the node with this number, a borrowed reference. */
static PyObject *owner_at(NodeHooks *self, int64_t number)
{
    Py_ssize_t place = self->last_found - 1;
    if (place < self->first || place >= self->size || self->nodes[place].number != number)
        place = place_of(self, number);
    if (place == self->size || self->nodes[place].number != number) /* of an earlier step */
        for (place = self->first - 1; place >= 0 && self->nodes[place].number != number; place--)
            ;
    self->last_found = place;
    return place < 0 ? self->nobody : self->nodes[place].owner;
}

static int node_runs(NodeHooks *self)
{
    PyObject *node = PyObject_CallNoArgs(self->current_node);
    int64_t number = node == NULL ? -1 : number_of(node);
    Py_XDECREF(node);
    if (PyErr_Occurred())
        return -1;
    return switch_owner(self->timestamps, self->now, self->owners, owner_at(self, number));
}

/* The hook: the gradient has arrived at the node that runs. */
static PyObject *hooks_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    NodeHooks *self = (NodeHooks *)object;
    if (PyList_Size(self->in_backward) > 0 && node_runs(self) < 0) {
        PyObject *error = take_exception();
        PyObject *done = PyObject_CallFunctionObjArgs(self->failed, error, NULL);
        Py_XDECREF(error);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    Py_RETURN_NONE;
}

/* add(node, row): when the gradient arrives at the node, the backward of the row begins. */
static PyObject *hooks_add(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    if (count != 2)
        PyErr_SetString(PyExc_TypeError, "add(node, row)");
    int64_t number = count != 2 ? -1 : number_of(given[0]);
    if (PyErr_Occurred() || add_node(object, given[0], number, given[1]) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* begin(): a step begins. */
static PyObject *hooks_begin(PyObject *object, PyObject *unused)
{
    NodeHooks *self = (NodeHooks *)object;
    if (self->size > REMEMBERED) {
        Py_ssize_t kept = self->size / 2;
        memmove(self->nodes, self->nodes + self->size - kept, kept * sizeof *self->nodes);
        self->size = kept;
    }
    self->first = self->last_found = self->size;
    Py_RETURN_NONE;
}

/* hook(owner): returns the hook of parameters. */
static PyObject *hooks_hook(PyObject *object, PyObject *owner)
{
    NodeHooks *self = (NodeHooks *)object;
    return new_hook(owner, self->timestamps, self->now, self->owners, self->in_backward, self->failed);
}

static PyObject *hooks_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
#define X(name) #name,
    static char *names[] = {ARGUMENTS(X) NULL};
#undef X
    NodeHooks *self = (NodeHooks *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    int whole = PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!O!OOOOO", names, &self->timestamps, &self->now,
                                            &PyList_Type, &self->owners, &PyList_Type, &self->in_backward,
                                            &self->failed, &self->current_node, &self->new_carrier,
                                            &self->keep_edges, &self->nobody);
    ARGUMENTS(OWN_FIELD)
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void hooks_finish(PyObject *object)
{
    NodeHooks *self = (NodeHooks *)object;
    for (Py_ssize_t row = 0; row < self->rows; row++)
        Py_XDECREF(self->backward_owners[row]);
    PyMem_Free(self->backward_owners);
    PyMem_Free(self->nodes);
    free_collected(object, hooks_clear);
}

static PyMethodDef hooks_methods[] = {
    {"add", (PyCFunction)(void (*)(void))hooks_add, METH_FASTCALL, NULL},
    {"begin", hooks_begin, METH_NOARGS, NULL},
    {"hook", hooks_hook, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot hooks_slots[] = {
    {Py_tp_new, hooks_make},     {Py_tp_dealloc, hooks_finish}, {Py_tp_traverse, hooks_traverse},
    {Py_tp_clear, hooks_clear},  {Py_tp_call, hooks_call},      {Py_tp_methods, hooks_methods},
    {0, NULL},
};

static PyType_Spec hooks_spec = {
    .name = "distprof.probes.timing._fast_path.NodeHooks",
    .basicsize = sizeof(NodeHooks),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = hooks_slots,
};

int add_node_hook_type(PyObject *module)
{
    s_sequence_nr = PyUnicode_InternFromString("_sequence_nr");
    s_register = PyUnicode_InternFromString("_register_hook_dict");
    hooks_type = (PyTypeObject *)add_type(module, "NodeHooks", &hooks_spec);
    return s_sequence_nr == NULL || s_register == NULL || hooks_type == NULL ? -1 : 0;
}
