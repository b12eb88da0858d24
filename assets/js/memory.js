// What the browser keeps: the form and the last picture over a reload (this tab only), progress over days. Nothing leaves the browser.

const MOST_PICTURE = 1_500_000; // characters of a kept picture

/** @param {Storage | undefined} storage */
const guarded = (storage) => ({
  /** @param {string} key */
  get: (key) => {
    try {
      return JSON.parse(storage?.getItem(key) ?? "null");
    } catch {
      return null; // private browsing, or something else's value
    }
  },
  /**
   * @param {string} key
   * @param {any} value
   */
  set: (key, value) => {
    try {
      if (value === null) storage?.removeItem(key);
      else storage?.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      return false; // full, or private browsing
    }
  },
});

// What is read back may be of an older version of the page, or somebody's experiment with the storage: what has another shape is not there.
/** @param {any} value @param {(item: any) => boolean} fits */
const record = (value, fits) =>
  !!value && typeof value === "object" && !Array.isArray(value) && Object.values(value).every(fits);
/** @param {any} value */
const words = (value) => Array.isArray(value) && value.every((item) => typeof item === "string");

const session = guarded(globalThis.sessionStorage);
const lasting = guarded(globalThis.localStorage);

/**
 * The form of a topic as the person left it, unless they came by another link since.
 * @param {string} topic
 * @param {string} link the address's query now
 * @returns {{experiment: string, all: Record<string, any>} | null}
 */
export const keptForm = (topic, link) => {
  const form = session.get("form:" + topic);
  const fits = typeof form?.experiment === "string" && record(form.all, (values) => record(values, () => true));
  return fits && form.link === link ? form : null;
};

/**
 * @param {string} topic
 * @param {{experiment: string, all: Record<string, any>}} form
 * @param {string} link
 */
export const keepForm = (topic, form, link) => session.set("form:" + topic, { ...form, link });

/**
 * The last picture of a topic: its messages, and whether its run had ended.
 * @param {string} topic
 * @returns {{messages: any[], ended: boolean} | null}
 */
export const keptPicture = (topic) => {
  const kept = session.get("picture:" + topic);
  const [first] = Array.isArray(kept?.messages) ? kept.messages : [];
  return first?.open && kept.messages.every((/** @type {any} */ m) => m?.scene === first.open.scene) ? kept : null;
};

/**
 * @param {string} topic
 * @param {{messages: any[], ended: boolean} | null} picture
 */
export const keepPicture = (topic, picture) => {
  const small = picture && picture.messages.reduce((sum, m) => sum + (m.updates?.length ?? 0), 0) <= MOST_PICTURE;
  if (!session.set("picture:" + topic, small ? picture : null)) session.set("picture:" + topic, null);
};

/** What has been done: {"nanogpt": ["train"], ...}. @returns {Record<string, string[]>} */
export const done = () => {
  const all = lasting.get("done");
  return record(all, words) ? all : {};
};

/**
 * @param {string} topic
 * @param {string} experiment
 */
export const markDone = (topic, experiment) => {
  const all = done();
  all[topic] = [...new Set([...(all[topic] ?? []), experiment])];
  lasting.set("done", all);
};

/** @param {string} topic @returns {number | null} */
export const tourStep = (topic) => {
  const step = lasting.get("step:" + topic);
  return Number.isInteger(step) && step >= 0 ? step : null;
};

/**
 * @param {string} topic
 * @param {number | null} step
 */
export const keepTourStep = (topic, step) => lasting.set("step:" + topic, step);

export const presenterMode = () => lasting.get("presenter") === true;

/** @param {boolean} on */
export const keepPresenterMode = (on) => lasting.set("presenter", on || null);
