"""The weights arcedge trained itself, a card beside each. Data only: `edge.weights` finds them here."""
