// The browser's half of the app. Gradio calls the parts by name when it makes a component (pages/_kit/page.py); see PROTOCOL.md.

import { cards } from "./cards.js";
import { diagram } from "./diagram.js";
import { short } from "./dom.js";
import { files } from "./files.js";
import { form } from "./form.js";
import { picture } from "./picture.js";
import { present, watchPresenter } from "./presenter.js";
import { start } from "./start.js";
import { link, tabs, watchTabs } from "./tabs.js";
import { take } from "./take.js";
import { watchTheme } from "./theme.js";
import { niceTicks } from "./ticks.js";
import { tour } from "./tour.js";
import { transport } from "./transport.js";
import { views } from "./views/index.js";

const Viz = {
  cards,
  diagram,
  files,
  form,
  link,
  niceTicks,
  picture,
  present,
  short,
  start,
  tabs,
  take,
  tour,
  transport,
  views,
};
window.Viz = Viz;

watchTheme();
watchTabs();
watchPresenter();
window.vizLoaded(Viz);
