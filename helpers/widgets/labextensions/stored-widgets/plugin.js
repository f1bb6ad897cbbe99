// While a notebook opens, JupyterLab renders its stored widgets before the widget manager has restored them. For that,
// the manager's get_model looks for a widget again and again for two seconds. On a slow machine the widget may arrive
// after the last look but before the two seconds are over, and JupyterLab then shows "model not found" for good.
// With this extension get_model looks for a minute. The file has the form of a built extension: a container with init
// and get.
{
  let shared;

  async function patchWidgetManagers() {
    for (const { get } of Object.values(shared["@jupyter-widgets/base-manager"] ?? {})) {
      const { prototype } = (await get())().ManagerBase;
      const original = prototype.get_model;
      prototype.get_model = async function (id) {
        const end = Date.now() + 60_000;
        while (!this.has_model(id) && Date.now() < end) await new Promise((done) => setTimeout(done, 100));
        return original.call(this, id);
      };
    }
  }

  window._JUPYTERLAB ??= {};
  window._JUPYTERLAB["stored-widgets"] = {
    init: (scope) => (shared = scope),
    get: async () => {
      await patchWidgetManagers();
      return () => ({ id: "stored-widgets:plugin", autoStart: true, activate() {} });
    },
  };
}
