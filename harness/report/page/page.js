// Everything is opened here.

document.documentElement.classList.add("scripted");
openTables();
drawCharts();
const data = await Transcripts.open();
if (data?.talks.length) {
  new SideBySide(data);
  new Votes(data, [...new Set(data.plays.map((play) => play.run))].join("+"));
}
document.documentElement.dataset.ready = "";
