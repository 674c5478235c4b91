/* The way that most module calls of a timed step take: a module met before, called inside a model's forward by the
 * thread that trains, given a tensor and returning one.
 *
 * Here is what ModuleTimer of timing.py does with such a call, on the same lists, and nothing else: all other calls are
 * handed on to it.  It is C because it runs for every module of every timed step, among kernels that empty the caches:
 * there each object and each line of bytecode that is touched costs more than what it does, and this touches the
 * fewest.  Where it cannot be compiled ModuleTimer does it all, at twice the cost (`make bench`).
 *
 * What it calls in Python is marked as unseen, each function by itself: to torch's compiler, which looks at the frames
 * below the module door, this is no frame.
 *
 * Written in the limited API of Python 3.10, so that one file serves all versions.  It raises what it meets: the module
 * door catches that.
 */
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* What a shortcut works on, by the names of the constructor's arguments. */
#define FIELDS(X) \
    X(timer)           /* ModuleTimer: takes all other calls */ \
    X(row_of)          /* dict: id of a module -> its row */ \
    X(stack)           /* list of rows: the modules that run; empty outside of a forward, and in evaluation */ \
    X(entered)         /* list of rows, once for each call */ \
    X(owners)          /* list: who owns each turn */ \
    X(stamp)           /* keeps the moment at which a turn began */ \
    X(now)             /* that moment */ \
    X(hooked)          /* list of the sequence numbers of nodes that carry a hook, ascending, the first of none */ \
    X(in_backward)     /* list, empty outside of backward */ \
    X(special)         /* set of the rows that are left to the timer */ \
    X(hooks)           /* mapping: row -> the hooks of nodes at which its backward begins, as torch keeps them */ \
    X(carrier)         /* tensor that carries hooks into nodes */ \
    X(plain)           /* torch.Tensor: neither a parameter nor a subclass */ \
    X(is_grad_enabled)

typedef struct {
    PyObject_HEAD
#define X(name) PyObject *name;
    FIELDS(X)
#undef X
    unsigned long thread; /* the one that made this */
} Shortcut;

static PyObject *s_enter, *s_leave, *s_meet_input, *s_meet_output;
static PyObject *s_grad_fn, *s_sequence_nr, *s_backward_hooks, *s_register;

/* The time is `owner`'s from `now` on. */
static int turn(PyObject *now, PyObject *stamp, PyObject *owners, PyObject *owner)
{
    PyObject *moment = PyObject_CallNoArgs(now);
    PyObject *done = moment == NULL ? NULL : PyObject_CallFunctionObjArgs(stamp, moment, NULL);
    Py_XDECREF(moment);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return PyList_Append(owners, owner);
}

/* When the gradient arrives at `node` it is the backward of `row` that begins. */
static int hook(Shortcut *self, PyObject *node, PyObject *number, PyObject *row)
{
    if (PyList_Append(self->hooked, number) < 0)
        return -1;
    PyObject *hooks = PyObject_GetItem(self->hooks, row);
    if (hooks == NULL)
        return -1;
    PyObject *done = NULL;
    if (PyObject_SetAttr(self->carrier, s_backward_hooks, hooks) == 0)
        done = PyObject_CallMethodObjArgs(node, s_register, self->carrier, NULL);
    Py_DECREF(hooks);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return 0;
}

/* What is to be done about the node of `tensor`, a plain one: it needs a hook, it has one, or the timer has to look. */
enum todo { FAILED = -1, NOTHING, NEW, LOOK };

static enum todo look_at(Shortcut *self, PyObject *tensor, PyObject **node, PyObject **number)
{
    *number = NULL;
    *node = PyObject_GetAttr(tensor, s_grad_fn);
    if (*node == NULL)
        return FAILED;
    if (*node == Py_None)
        return LOOK;
    *number = PyObject_CallMethodObjArgs(*node, s_sequence_nr, NULL);
    PyObject *last = PyList_GetItem(self->hooked, PyList_Size(self->hooked) - 1);
    if (*number == NULL || last == NULL)
        return FAILED;
    long long own = PyLong_AsLongLong(*number), highest = PyLong_AsLongLong(last);
    if (PyErr_Occurred())
        return FAILED;
    return own > highest ? NEW : own == highest ? NOTHING : LOOK;
}

static int is_special(Shortcut *self, PyObject *row)
{
    return PySet_Size(self->special) > 0 ? PySet_Contains(self->special, row) : 0;
}

static int meet_input(Shortcut *self, PyObject *row, PyObject *module, PyObject *args, PyObject *kwargs)
{
    PyObject *tensor = PyTuple_Size(args) > 0 ? PyTuple_GetItem(args, 0) : NULL, *node = NULL, *number = NULL;
    enum todo todo = LOOK;
    if (tensor != NULL && (PyObject *)Py_TYPE(tensor) == self->plain)
        todo = look_at(self, tensor, &node, &number);
    if (todo == NEW) {
        PyObject *enabled = PyObject_CallNoArgs(self->is_grad_enabled);
        if (enabled == NULL)
            todo = FAILED;
        else if (enabled == Py_True) {
            PyObject *caller = PyList_GetItem(self->stack, PyList_Size(self->stack) - 1);
            if (caller == NULL || hook(self, node, number, caller) < 0)
                todo = FAILED;
        }
        Py_XDECREF(enabled);
    } else if (todo == LOOK) {
        PyObject *done = PyObject_CallMethodObjArgs(self->timer, s_meet_input, row, module, args, kwargs, NULL);
        todo = done == NULL ? FAILED : NOTHING;
        Py_XDECREF(done);
    }
    Py_XDECREF(node);
    Py_XDECREF(number);
    return todo == FAILED ? -1 : 0;
}

static int meet_output(Shortcut *self, PyObject *row, PyObject *output)
{
    PyObject *node = NULL, *number = NULL;
    enum todo todo = LOOK;
    if ((PyObject *)Py_TYPE(output) == self->plain)
        todo = look_at(self, output, &node, &number);
    if (todo == NEW && hook(self, node, number, row) < 0)
        todo = FAILED;
    else if (todo == LOOK && node != Py_None) { /* None: a tensor without a node */
        PyObject *done = PyObject_CallMethodObjArgs(self->timer, s_meet_output, row, output, NULL);
        todo = done == NULL ? FAILED : NOTHING;
        Py_XDECREF(done);
    }
    Py_XDECREF(node);
    Py_XDECREF(number);
    return todo == FAILED ? -1 : 0;
}

/* enter(module, args, kwargs) and leave(token, output): of distprof.doors.ModuleVisitor. */

static PyObject *enter(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    Shortcut *self = (Shortcut *)object;
    if (count != 3 || !PyTuple_Check(given[1])) {
        PyErr_SetString(PyExc_TypeError, "enter(module, args, kwargs)");
        return NULL;
    }
    PyObject *module = given[0], *args = given[1], *kwargs = given[2], *row = NULL;
    if (PyList_Size(self->stack) > 0 && PyList_Size(self->in_backward) == 0 &&
        PyThread_get_thread_ident() == self->thread) {
        PyObject *key = PyLong_FromVoidPtr(module);
        if (key == NULL)
            return NULL;
        row = PyDict_GetItemWithError(self->row_of, key);
        Py_DECREF(key);
        if (row == NULL && PyErr_Occurred())
            return NULL;
    }
    int special = row == NULL ? 1 : is_special(self, row);
    if (special)
        return special < 0 ? NULL : PyObject_CallMethodObjArgs(self->timer, s_enter, module, args, kwargs, NULL);
    Py_INCREF(row);
    if (PyList_Append(self->entered, row) < 0 || turn(self->now, self->stamp, self->owners, row) < 0 ||
        meet_input(self, row, module, args, kwargs) < 0 || PyList_Append(self->stack, row) < 0) {
        Py_DECREF(row);
        return NULL;
    }
    return row;
}

static PyObject *leave(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    Shortcut *self = (Shortcut *)object;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "leave(token, output)");
        return NULL;
    }
    PyObject *row = given[0], *output = given[1];
    Py_ssize_t depth = PyList_Size(self->stack);
    int special = depth < 2 || PyList_Size(self->in_backward) > 0 ? 1 : is_special(self, row);
    if (special)
        return special < 0 ? NULL : PyObject_CallMethodObjArgs(self->timer, s_leave, row, output, NULL);
    PyObject *caller = PyList_GetItem(self->stack, depth - 2);
    if (caller == NULL || PyList_SetSlice(self->stack, depth - 1, depth, NULL) < 0 || turn(self->now, self->stamp, self->owners, caller) < 0 ||
        meet_output(self, row, output) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* What is called when the gradient arrives at a node: from here on the time is `owner`'s. */

#define HOOK_FIELDS(X) \
    X(owner) \
    X(stamp) \
    X(now) \
    X(owners) \
    X(in_backward) /* as above: a graph may live longer than the window */ \
    X(failed)      /* is told of what went wrong: raised, it would end in the user's backward */

typedef struct {
    PyObject_HEAD
#define X(name) PyObject *name;
    HOOK_FIELDS(X)
#undef X
} Hook;

static PyObject *gradient_arrives(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Hook *self = (Hook *)object;
    if (PyList_Size(self->in_backward) > 0 && turn(self->now, self->stamp, self->owners, self->owner) < 0) {
        PyObject *type, *error, *trace;
        PyErr_Fetch(&type, &error, &trace);
        PyErr_NormalizeException(&type, &error, &trace);
        PyObject *done = PyObject_CallFunctionObjArgs(self->failed, error, NULL);
        Py_XDECREF(type);
        Py_XDECREF(error);
        Py_XDECREF(trace);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    Py_RETURN_NONE;
}

static PyObject *make_hook(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
#define X(name) #name,
    static char *names[] = {HOOK_FIELDS(X) NULL};
#undef X
    Hook *self = (Hook *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    int whole = PyArg_ParseTupleAndKeywords(args, kwargs, "OOOO!O!O", names, &self->owner, &self->stamp, &self->now,
                                            &PyList_Type, &self->owners, &PyList_Type, &self->in_backward, &self->failed);
#define X(name) Py_XINCREF(self->name);
    HOOK_FIELDS(X)
#undef X
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int traverse_hook(PyObject *object, visitproc visit, void *arg)
{
    Hook *self = (Hook *)object;
#define X(name) Py_VISIT(self->name);
    HOOK_FIELDS(X)
#undef X
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static int clear_hook(PyObject *object)
{
    Hook *self = (Hook *)object;
#define X(name) Py_CLEAR(self->name);
    HOOK_FIELDS(X)
#undef X
    return 0;
}

static void finish_hook(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear_hook(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyType_Slot hook_slots[] = {
    {Py_tp_new, make_hook},    {Py_tp_dealloc, finish_hook}, {Py_tp_traverse, traverse_hook},
    {Py_tp_clear, clear_hook}, {Py_tp_call, gradient_arrives}, {0, NULL},
};

static PyType_Spec hook_spec = {
    .name = "distprof.probes._shortcut.Hook",
    .basicsize = sizeof(Hook),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = hook_slots,
};

/* Life. */

static PyObject *make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
#define X(name) #name,
    static char *names[] = {FIELDS(X) NULL};
#undef X
#define X(name) "O"
    static const char *format = FIELDS(X) "";
#undef X
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Shortcut *self = (Shortcut *)allocate(type, 0);
    if (self == NULL)
        return NULL;
#define X(name) &self->name,
    int whole = PyArg_ParseTupleAndKeywords(args, kwargs, format, names, FIELDS(X) NULL);
#undef X
#define X(name) Py_XINCREF(self->name);
    FIELDS(X)
#undef X
    if (whole && !(PyDict_Check(self->row_of) && PyList_Check(self->stack) && PyList_Check(self->entered) &&
                   PyList_Check(self->owners) && PyList_Check(self->hooked) && PyList_Check(self->in_backward) &&
                   PyAnySet_Check(self->special))) {
        PyErr_SetString(PyExc_TypeError, "a shortcut works on a dict, lists and a set");
        whole = 0;
    }
    if (!whole) {
        Py_DECREF(self);
        return NULL;
    }
    self->thread = PyThread_get_thread_ident();
    return (PyObject *)self;
}

static int traverse(PyObject *object, visitproc visit, void *arg)
{
    Shortcut *self = (Shortcut *)object;
#define X(name) Py_VISIT(self->name);
    FIELDS(X)
#undef X
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static int clear(PyObject *object)
{
    Shortcut *self = (Shortcut *)object;
#define X(name) Py_CLEAR(self->name);
    FIELDS(X)
#undef X
    return 0;
}

static void finish(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"enter", (PyCFunction)(void (*)(void))enter, METH_FASTCALL, NULL},
    {"leave", (PyCFunction)(void (*)(void))leave, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, make},         {Py_tp_dealloc, finish},   {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},      {Py_tp_methods, methods},  {0, NULL},
};

static PyType_Spec spec = {
    .name = "distprof.probes._shortcut.Shortcut",
    .basicsize = sizeof(Shortcut),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "distprof.probes._shortcut", .m_size = -1,
};

static int add(PyObject *module, const char *name, PyType_Spec *what)
{
    PyObject *type = PyType_FromSpec(what);
    if (type == NULL || PyModule_AddObject(module, name, type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    return 0;
}

PyMODINIT_FUNC PyInit__shortcut(void)
{
    struct {
        PyObject **name;
        const char *text;
    } names[] = {
        {&s_enter, "enter"},
        {&s_leave, "leave"},
        {&s_meet_input, "meet_input"},
        {&s_meet_output, "meet_output"},
        {&s_grad_fn, "grad_fn"},
        {&s_sequence_nr, "_sequence_nr"},
        {&s_backward_hooks, "_backward_hooks"},
        {&s_register, "_register_hook_dict"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].name = PyUnicode_InternFromString(names[i].text)) == NULL)
            return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || add(module, "Shortcut", &spec) < 0 || add(module, "Hook", &hook_spec) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
