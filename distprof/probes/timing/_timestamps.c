/* Intervals as they are taken in a timed step: the stamps, and what takes one when a gradient arrives in backward.
 *
 * A stamp costs less than the number that would hold it: here it is written into one piece of memory, from the clock
 * that time.perf_counter_ns reads.
 */
#include "_timestamps.h"

#include <stdint.h>
#include <string.h>
#include <time.h>

/* Stamps: a sequence of nanoseconds that reads the clock itself.  What distprof.probes.timing.timeline does with a room of stamps. */

typedef struct {
    PyObject_HEAD
    int64_t *ns;
    Py_ssize_t size, room;
} Stamps;

static PyTypeObject *stamps_type;

static int append(Stamps *self, int64_t ns)
{
    if (self->size == self->room) {
        Py_ssize_t room = self->room ? 2 * self->room : 64;
        int64_t *grown = PyMem_Realloc(self->ns, room * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->ns = grown;
        self->room = room;
    }
    self->ns[self->size++] = ns;
    return 0;
}

static int append_now(Stamps *self)
{
    struct timespec moment;
    if (clock_gettime(CLOCK_MONOTONIC, &moment) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return append(self, moment.tv_sec * INT64_C(1000000000) + moment.tv_nsec);
}

int take_turn(PyObject *stamps, PyObject *now, PyObject *owners, PyObject *owner)
{
    if (Py_TYPE(stamps) == stamps_type) {
        if (append_now((Stamps *)stamps) < 0)
            return -1;
    } else {
        PyObject *moment = PyObject_CallNoArgs(now);
        PyObject *done = moment == NULL ? NULL : PyObject_CallMethod(stamps, "append", "O", moment);
        Py_XDECREF(moment);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    return PyList_Append(owners, owner);
}

static PyObject *stamps_append(PyObject *object, PyObject *number)
{
    int64_t ns = PyLong_AsLongLong(number);
    if ((ns == -1 && PyErr_Occurred()) || append((Stamps *)object, ns) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *stamps_tobytes(PyObject *object, PyObject *unused)
{
    Stamps *self = (Stamps *)object;
    return PyBytes_FromStringAndSize((char *)self->ns, self->size * sizeof *self->ns);
}

/* The low 32 bits of each, in this machine's order of bytes. */
static PyObject *stamps_low_words(PyObject *object, PyObject *unused)
{
    Stamps *self = (Stamps *)object;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, self->size * sizeof(uint32_t));
    if (bytes == NULL)
        return NULL;
    char *words = PyBytes_AsString(bytes);
    for (Py_ssize_t i = 0; i < self->size; i++) {
        uint32_t word = (uint32_t)self->ns[i];
        memcpy(words + i * sizeof word, &word, sizeof word);
    }
    return bytes;
}

static Py_ssize_t stamps_length(PyObject *object)
{
    return ((Stamps *)object)->size;
}

static PyObject *stamps_item(PyObject *object, Py_ssize_t index) /* Python has made a negative one count from the end */
{
    Stamps *self = (Stamps *)object;
    if (index < 0 || index >= self->size) {
        PyErr_SetString(PyExc_IndexError, "no such stamp");
        return NULL;
    }
    return PyLong_FromLongLong(self->ns[index]);
}

static int stamps_delete(PyObject *object, PyObject *which, PyObject *value) /* all of them: del stamps[:] */
{
    Stamps *self = (Stamps *)object;
    Py_ssize_t start, stop, step;
    if (value == NULL && Py_TYPE(which) == &PySlice_Type && PySlice_Unpack(which, &start, &stop, &step) == 0 &&
        start == 0 && stop >= self->size && step == 1) {
        self->size = 0;
        return 0;
    }
    PyErr_SetString(PyExc_TypeError, "stamps are taken, and deleted all at once");
    return -1;
}

static void stamps_finish(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(((Stamps *)object)->ns);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef stamps_methods[] = {
    {"append", stamps_append, METH_O, NULL},
    {"tobytes", stamps_tobytes, METH_NOARGS, NULL},
    {"low_words", stamps_low_words, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot stamps_slots[] = {
    {Py_tp_dealloc, stamps_finish}, {Py_tp_methods, stamps_methods}, {Py_sq_length, stamps_length},
    {Py_sq_item, stamps_item},      {Py_mp_ass_subscript, stamps_delete},
    {0, NULL},
};

static PyType_Spec stamps_spec = {
    .name = "distprof.probes.timing._fast_path.Stamps",
    .basicsize = sizeof(Stamps),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = stamps_slots,
};

/* Hook: what is called when the gradient arrives at a node.  From here on the time is `owner`'s. */

#define FIELDS(X) \
    X(owner) \
    X(stamps) \
    X(now) \
    X(owners) \
    X(in_backward) /* list, empty outside of backward: a graph may live longer than the window */ \
    X(failed)      /* is told of what went wrong: raised, it would end in the user's backward */

typedef struct {
    PyObject_HEAD
#define X(name) PyObject *name;
    FIELDS(X)
#undef X
} Hook;

static PyObject *hook_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Hook *self = (Hook *)object;
    if (PyList_Size(self->in_backward) > 0 && take_turn(self->stamps, self->now, self->owners, self->owner) < 0) {
        PyObject *error = take_exception();
        PyObject *done = PyObject_CallFunctionObjArgs(self->failed, error, NULL);
        Py_XDECREF(error);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    Py_RETURN_NONE;
}

static PyObject *hook_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
#define X(name) #name,
    static char *names[] = {FIELDS(X) NULL};
#undef X
    Hook *self = (Hook *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    int whole = PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO!O!O", names, &self->owner, &self->stamps, &self->now,
                                            &PyList_Type, &self->owners, &PyList_Type, &self->in_backward,
                                            &self->failed);
#define X(name) Py_XINCREF(self->name);
    FIELDS(X)
#undef X
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int hook_traverse(PyObject *object, visitproc visit, void *arg)
{
    Hook *self = (Hook *)object;
#define X(name) Py_VISIT(self->name);
    FIELDS(X)
#undef X
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static int hook_clear(PyObject *object)
{
    Hook *self = (Hook *)object;
#define X(name) Py_CLEAR(self->name);
    FIELDS(X)
#undef X
    return 0;
}

static void hook_finish(PyObject *object)
{
    free_collected(object, hook_clear);
}

static PyType_Slot hook_slots[] = {
    {Py_tp_new, hook_make},     {Py_tp_dealloc, hook_finish}, {Py_tp_traverse, hook_traverse},
    {Py_tp_clear, hook_clear}, {Py_tp_call, hook_call},      {0, NULL},
};

static PyType_Spec hook_spec = {
    .name = "distprof.probes.timing._fast_path.Hook",
    .basicsize = sizeof(Hook),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = hook_slots,
};

/* For both files. */

PyObject *take_exception(void)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (trace != NULL)
        PyException_SetTraceback(error, trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
}

void free_collected(PyObject *object, inquiry clear)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

PyObject *add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromSpec(spec);
    if (type != NULL && PyModule_AddObject(module, name, type) < 0)
        Py_CLEAR(type);
    return type;
}

int add_turns(PyObject *module)
{
    stamps_type = (PyTypeObject *)add_type(module, "Stamps", &stamps_spec);
    return stamps_type == NULL || add_type(module, "Hook", &hook_spec) == NULL ? -1 : 0;
}
